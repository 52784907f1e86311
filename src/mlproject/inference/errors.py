"""The error codes of images without a prediction. The list is closed."""

EMPTY = "empty"
TOO_MANY_BYTES = "too_many_bytes"
UNSUPPORTED_FORMAT = "unsupported_format"
TOO_MANY_PIXELS = "too_many_pixels"
UNDECODABLE = "undecodable"
NOT_FINITE = "not_finite"
BAD_ANSWER = "bad_answer"
MODEL_FAILED = "model_failed"
GONE = "gone"
CHANGED = "changed"

# Code -> its meaning, in one line. A version returns "" where there is no error.
ERRORS = {
    EMPTY: "there are no bytes",
    TOO_MANY_BYTES: "the file is larger than the version's `max_bytes`",
    UNSUPPORTED_FORMAT: "the bytes have none of the version's `formats`, whatever the file name",
    TOO_MANY_PIXELS: "the image has more pixels than `max_pixels`, "
    "or decoding needs more memory than `max_decode_bytes`",
    UNDECODABLE: "the bytes start like an image but are truncated or malformed",
    NOT_FINITE: "a score of the network is not a finite number",
    BAD_ANSWER: "the prediction is invalid: no label, or scores that are not probabilities",
    MODEL_FAILED: "the version raised an exception on this image",
    GONE: "the table has no bytes, and the file was removed",
    CHANGED: "the table has no bytes, and the file has changed",
}
