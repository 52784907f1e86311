"""What a worker process keeps from task to task."""

import hashlib

from mlproject.inference import process


def test_a_file_is_hashed_again_only_when_it_was_replaced(tmp_path, monkeypatch):
    read, real = [], hashlib.file_digest

    def counted(file, name):
        read.append(file.name)
        return real(file, name)

    monkeypatch.setattr(hashlib, "file_digest", counted)
    file = tmp_path / "network.onnx"
    for content, times in ((b"one", 1), (b"one", 1), (b"two", 2)):
        if not file.exists() or file.read_bytes() != content:
            (tmp_path / "new").write_bytes(content)
            (tmp_path / "new").replace(file)
        assert hashlib.sha256(content).hexdigest() == process.file_sha256(file)
        assert times == len(read)
