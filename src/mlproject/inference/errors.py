"""The codes that stand in a row's `error` when an image has no answer. The list is closed."""

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

# Code -> what it means, in one line. "" in an `error` column of a version means: no error.
ERRORS = {
    EMPTY: "there are no bytes",
    TOO_MANY_BYTES: "the file is larger than the version's `max_bytes`",
    UNSUPPORTED_FORMAT: "the bytes are of none of the version's `formats`, whatever the file name",
    TOO_MANY_PIXELS: "the header tells of more pixels than `max_pixels`, "
    "or decoding them would take more memory than `max_decode_bytes`",
    UNDECODABLE: "the bytes start like an image and are broken, cut off or malformed",
    NOT_FINITE: "the network answered with a number that is not finite",
    BAD_ANSWER: "the version's label and scores are none: no label, or no probabilities",
    MODEL_FAILED: "the version raised an exception on this image",
    GONE: "the table holds no bytes, and the file is there no more",
    CHANGED: "the table holds no bytes, and the file has other bytes than it had",
}
