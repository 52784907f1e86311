"""Gates on a version's files, packages and approval: no prediction is needed."""

from mlproject.gates import approvals
from mlproject.versions import version_files
from tests.support.gates import found, refused, run_gates, states
from tests.support.versions import register_colours


def test_other_packages_are_noted_and_refuse_nothing(store, client, lake):
    version = register_colours("pinned", pins=("mlflow==3.17.2", "pillow==1.0", "nothing==2"))
    results = run_gates(client, lake, version)
    assert [] == refused(results)
    assert "noted" == states(results)["requirements"]
    assert "pillow 1.0 (here 13.0.0), nothing 2 (here absent)" in found(results, "requirements")


def test_files_that_changed_since_the_promotion_are_refused_in_every_mode(store, client, lake):
    version = register_colours("changed")
    files = version_files.read(version)
    version_files.require_unchanged(client, version, files)
    (code,) = store.rglob(f"{version.model_id}/**/colour_model.py")
    code.write_text(code.read_text() + "# another\n")
    for mode in ("block", "warn", "off"):
        results = run_gates(client, lake, version, mode=mode)
        assert (["files"], "refused") == (refused(results), results.outcome(mode))
    assert "files changed since promotion" in found(results, "files")


def test_files_that_are_lost_are_refused_with_the_reason(store, client, lake):
    version = register_colours("lost")
    (code,) = store.rglob(f"{version.model_id}/**/colour_model.py")
    for path in code.parent.iterdir():
        path.unlink()
    code.parent.rmdir()
    results = run_gates(client, lake, version)
    assert (["files"], True) == (refused(results), "no file MLmodel" in found(results, "files"))


def test_an_approval_is_required_in_every_mode_and_names_the_files(store, client, check):
    assert (["approval"], "refused") == (
        refused(check(require_approval=True, mode="off")),
        check(require_approval=True, mode="warn").outcome("warn"),
    )
    assert [] == refused(check(require_approval=True, approved=True))
    version = register_colours("approved")
    assert not approvals.read_approval(client, version, "digest").approved
    approvals.approve(client, version, "digest", "Ada")
    approved, reason = approvals.read_approval(client, version, "digest")
    assert (True, True) == (approved, reason.startswith("by Ada, 20"))
    approved, reason = approvals.read_approval(client, version, "other")
    assert (False, True) == (approved, "with other files" in reason)
