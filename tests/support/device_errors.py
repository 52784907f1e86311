"""Texts of exceptions about memory and devices, as the libraries write them.

Sources: issues 16307 and 22702 of microsoft/onnxruntime, 20 of kamalkraj/BERT-NER-TF; c10/cuda of
torch 2.15; cudnn_graph.h and cublas_api.h of CUDA 13.
"""

ORT = "onnxruntime.capi.onnxruntime_pybind11_state."
ORT_NODE = (
    "Non-zero status code returned while running FusedConv node. Name:'Conv_3' Status Message: "
)

OUT_OF_MEMORY = (
    "MemoryError",
    "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.45 GiB for an array",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total "
    "capacity of 14.58 GiB of which 1.2 GiB is free.",
    "torch.AcceleratorError: CUDA error: out of memory",
    "RuntimeError: CUDA driver error: out of memory",
    "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    f"{ORT}RuntimeException: [ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : {ORT_NODE}\n"
    "/onnxruntime_src/onnxruntime/core/framework/bfc_arena.cc:376 void* onnxruntime::BFCArena::"
    "AllocateRawInternal(size_t, bool, onnxruntime::Stream*, bool, onnxruntime::WaitNotificationFn)"
    " Failed to allocate memory for requested buffer of size 2830172160",
    f"{ORT}RuntimeException: [ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : CUDA failure 2: out of "
    "memory ; GPU=0 ; hostname=w1 ; expr=cudaMalloc((void**)&p, size);",
    f"{ORT}Fail: [ONNXRuntimeError] : 1 : FAIL : {ORT_NODE}CUDNN failure 4004: "
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED ; GPU=0",
    "tensorflow.python.framework.errors_impl.ResourceExhaustedError: Graph execution error:\n\n"
    "OOM when allocating tensor with shape[256,96,112,112] and type float on /job:localhost/"
    "replica:0/task:0/device:GPU:0 by allocator GPU_0_bfc [Op:__inference_probabilities_1]",
    "tensorflow.python.framework.errors_impl.InternalError: RESOURCE_EXHAUSTED: Out of memory "
    "while trying to allocate 4932501504 bytes.",
)
DEVICE_FAULTS = (
    "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
    "RuntimeError: CUDA error: unspecified launch failure",
    "RuntimeError: CUDA driver error: unknown error",
    "RuntimeError: No CUDA GPUs are available",
    "RuntimeError: CUDA error: ONNX Runtime cannot use device 1: see its log",
    f"{ORT}Fail: [ONNXRuntimeError] : 1 : FAIL : {ORT_NODE}CUDNN failure 5000: "
    "CUDNN_STATUS_EXECUTION_FAILED ; GPU=0",
    f"{ORT}Fail: [ONNXRuntimeError] : 1 : FAIL : {ORT_NODE}CUBLAS failure 14: "
    "CUBLAS_STATUS_INTERNAL_ERROR ; GPU=0",
    f"{ORT}Fail: [ONNXRuntimeError] : 1 : FAIL : CUDA failure 100: no CUDA-capable device is "
    "detected ; GPU=-1",
    f"{ORT}Fail: [ONNXRuntimeError] : 1 : FAIL : CUDA failure 700: an illegal memory access was "
    "encountered ; GPU=0",
    "tensorflow.python.framework.errors_impl.InternalError: Failed to launch CUDA kernel: x with "
    "block dimensions: 256x1x1: CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure",
    "tensorflow.python.framework.errors_impl.UnknownError: Failed to get convolution algorithm: "
    "CUDNN_STATUS_INTERNAL_ERROR",
    "tensorflow.python.framework.errors_impl.FailedPreconditionError: DNN library initialization "
    "failed.",
)


def exception(text: str) -> Exception:
    """An exception of the kind and with the message of a traceback's last lines."""
    kind, _, message = text.partition(": ")
    name = kind.rpartition(".")[2]
    base = MemoryError if name.endswith("MemoryError") and "torch" not in kind else RuntimeError
    return type(name, (base,), {})(message)
