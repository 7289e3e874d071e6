"""A download is whole and right or an error, whatever the server, the network and the reader do."""

import functools
import shutil
import subprocess
import sys

from convnets.data import DownloadError, fetch, npm_pack

import pytest
from file_server import HALF, MD5, SHA1, SHA256, WHOLE


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "file.bin"


@pytest.fixture
def get(server, path):
    return functools.partial(fetch, server.url, path, sha256=SHA256, size=len(WHOLE),
                             timeout=1.5, progress=False)


def part(path):
    return path.with_name(path.name + ".part")


def leave_part(path, content):
    path.parent.mkdir()
    part(path).write_bytes(content)


@pytest.mark.parametrize("checks", [
    {"sha256": SHA256}, {"sha256": SHA256[:8]}, {"sha1": SHA1}, {"md5": MD5},
    {"sha256": SHA256, "md5": MD5, "size": len(WHOLE)}])
def test_whole_file(checks, server, path):
    assert fetch(server.url, path, **checks, progress=False) == path
    assert path.read_bytes() == WHOLE
    assert {p.name for p in path.parent.iterdir()} <= {"file.bin", "file.bin.lock"}


def test_a_file_that_is_there_needs_no_server(path):
    path.parent.mkdir()
    path.write_bytes(WHOLE)
    assert fetch("http://127.0.0.1:9/", path, sha256=SHA256, progress=False) == path


def test_a_wrong_file_that_is_there_is_replaced(get, path, capsys):
    path.parent.mkdir()
    path.write_bytes(WHOLE[:-1] + b"?")
    get()
    assert path.read_bytes() == WHOLE
    assert "file.bin has to be replaced: got 512,000 bytes with sha256" in capsys.readouterr().err


def test_a_wrong_file_is_kept_until_there_is_a_right_one(get, server, path):
    path.parent.mkdir()
    path.write_bytes(b"mine")
    server.plan = ["missing"]
    with pytest.raises(DownloadError):
        get()
    assert path.read_bytes() == b"mine"


def test_a_checksum_is_required(path):
    with pytest.raises(ValueError, match=r"sha256=\.\.\. or md5=\.\.\."):
        fetch("http://127.0.0.1:9/", path, size=3)


@pytest.mark.parametrize("checks", [
    {"sha256": SHA256[:7]}, {"sha1": SHA1[:8]}, {"md5": MD5[:8]}, {"sha256": SHA256 + "0"},
    {"sha256": SHA256.upper()}])
def test_a_checksum_must_be_one(checks, server, path):
    with pytest.raises(ValueError, match="hexadecimal digits in lower case, of sha256 at least 8"):
        fetch(server.url, path, **checks)
    assert server.ranges == []


def test_a_wrong_beginning_of_a_checksum(get, path):
    with pytest.raises(DownloadError, match=rf"{SHA256[:12]}\.\.\., expected 0{SHA256[1:8]}"):
        get(sha256="0" + SHA256[1:8])
    assert not path.exists()


def test_a_pointer_in_place_of_the_file(get, server, path):
    server.content = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 78
    with pytest.raises(DownloadError, match=r"got a Git LFS pointer of \d+ bytes, not"):
        get(size=None)
    assert not path.exists() and not part(path).exists()


@pytest.mark.parametrize("break_off", ["truncate", "wait_half_way"])
def test_a_broken_connection_is_continued(break_off, get, server, path):
    server.plan = [break_off, "serve"]
    get()
    assert path.read_bytes() == WHOLE
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_server_that_cannot_continue_sends_all_again(get, server, path):
    server.plan = ["truncate", "ignore_range"]
    get()
    assert path.read_bytes() == WHOLE


def test_a_part_of_something_else_is_thrown_away(get, server, path):
    leave_part(path, b"?" * HALF)
    get()
    assert path.read_bytes() == WHOLE
    assert server.ranges == [f"bytes={HALF}-", None]


@pytest.mark.parametrize("size", [len(WHOLE), None])
@pytest.mark.parametrize("content", [WHOLE + b"more", b"?" * len(WHOLE)])
def test_a_part_that_is_too_long_or_all_wrong(content, size, get, path):
    leave_part(path, content)
    get(size=size)
    assert path.read_bytes() == WHOLE


def test_a_part_that_is_whole_needs_no_server(path):
    leave_part(path, WHOLE)
    fetch("http://127.0.0.1:9/", path, sha256=SHA256, size=len(WHOLE), progress=False)
    assert path.read_bytes() == WHOLE


@pytest.mark.parametrize(("behaviour", "message"), [
    ("corrupt", "got 512,000 bytes with sha256 .* expected"),
    ("page", "a web page instead of the file"),
    ("missing", "answered 404 Not Found"),
    ("nothing", "ended at 0 of 512,000 bytes"),
    ("endless", "more came than the expected 512,000 bytes"),
])
def test_a_server_without_the_file(behaviour, message, get, server, path):
    server.plan = [behaviour]
    with pytest.raises(DownloadError, match=message) as e:
        get()
    assert server.url in str(e.value) and "\n" not in str(e.value)
    assert len(server.ranges) == 1
    assert not path.exists()


def test_what_came_is_kept_when_the_connection_breaks_for_good(get, server, path):
    server.plan = ["truncate", "nothing"]
    with pytest.raises(DownloadError, match="ended at 256,000 of 512,000 bytes"):
        get()
    assert part(path).read_bytes() == WHOLE[:HALF]
    server.plan = ["serve"]
    get()
    assert path.read_bytes() == WHOLE


def test_a_login_page_does_not_harm_what_came_before(get, server, path):
    leave_part(path, WHOLE[:HALF])
    server.plan = ["page"]
    with pytest.raises(DownloadError):
        get()
    assert part(path).read_bytes() == WHOLE[:HALF]


def test_a_connection_that_always_breaks_is_given_up(get, server):
    server.plan = ["truncate"]
    with pytest.raises(DownloadError, match=r"of 512,000 bytes"):
        get()
    assert len(server.ranges) == 5


def test_a_server_that_stalls_is_given_up(get, server):
    server.plan = ["wait_half_way", "wait_for_nothing"]
    with pytest.raises(DownloadError, match="timed out"):
        get()


def test_an_answer_of_another_length_is_not_read(get, server, path):
    server.content = WHOLE + b"more"
    with pytest.raises(DownloadError, match="file has 512,004 bytes, expected 512,000"):
        get()
    assert not part(path).exists()


def test_an_answer_for_another_range(get, server, path):
    leave_part(path, WHOLE[:HALF])
    server.plan = ["wrong_range"]
    with pytest.raises(DownloadError, match="asked for bytes from 256000, got bytes 0-511999"):
        get(size=None)
    assert part(path).read_bytes() == WHOLE[:HALF]


def test_a_length_must_be_known(get, server, path):
    server.plan = ["no_length"]
    with pytest.raises(DownloadError, match="give its size"):
        get(size=None)
    get()
    assert path.read_bytes() == WHOLE


def test_a_full_disk_is_noticed_before(get, path, monkeypatch):
    usage = shutil.disk_usage(path.parents[1])
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1_000_000))
    with pytest.raises(DownloadError, match=r"folder has 1 MB free, but file\.bin.* needs 105 MB"):
        get()
    assert not part(path).exists()


def test_no_server(path):
    with pytest.raises(DownloadError, match="refused"):
        fetch("http://127.0.0.1:9/", path, sha256=SHA256, timeout=5, progress=False)


def test_unknown_host(path):
    with pytest.raises(DownloadError, match=r"http://no\.such\.host\.invalid/file: "):
        fetch("http://no.such.host.invalid/file", path, sha256=SHA256, progress=False)


def test_progress_bar_on_stderr(get, capsys):
    get(progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "file.bin" in err and "100%" in err and "512k/512k" in err


def start_process(server, path):
    code = ("import sys; from convnets.data import fetch\n"
            f"fetch({server.url!r}, {str(path)!r}, sha256={SHA256!r}, progress=False)")
    return subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)


def test_killed_half_way_it_goes_on_from_there(get, server, path):
    server.plan = ["wait_half_way", "serve"]
    process = start_process(server, path)
    assert server.sent_half.wait(60)
    while not part(path).exists() or part(path).stat().st_size == 0:
        assert process.poll() is None, process.stderr.read()
    process.kill()
    process.communicate()
    came = part(path).stat().st_size
    assert 0 < came <= HALF and not path.exists()
    get()
    assert path.read_bytes() == WHOLE
    assert server.ranges == [None, f"bytes={came}-"]


def test_two_processes_at_once_fetch_once(server, path):
    server.plan = ["wait_half_way"]
    first = start_process(server, path)
    assert server.sent_half.wait(60)
    second = start_process(server, path)
    assert second.stderr.readline() == "another process is fetching file.bin: waiting\n"
    server.go_on.set()
    for process in (first, second):
        _, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
    assert path.read_bytes() == WHOLE
    assert server.ranges == [None]


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Put an `npm` first on the path that runs the given lines of Python."""
    def install(*lines):
        folder = tmp_path / "bin"
        folder.mkdir()
        program = folder / "npm"
        program.write_text("\n".join([f"#!{sys.executable}", "import sys, time",
                                      f"whole = {WHOLE[:256]!r} * 2000", *lines]))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
    return install


pack = functools.partial(npm_pack, "some-package@1.2.3", sha256=SHA256, size=len(WHOLE))


def test_npm(npm, path, capsys):
    npm("assert sys.argv[1:] == ['pack', 'some-package@1.2.3', '--ignore-scripts', "
        "'--fetch-retries=0']",
        "open('some-package-1.2.3.tgz', 'wb').write(whole)")
    left_by_a_killed_process = path.with_name("file.bin.npm")
    left_by_a_killed_process.mkdir(parents=True)
    (left_by_a_killed_process / "old.tgz").write_bytes(WHOLE[:HALF])
    assert pack(path) == path
    assert path.read_bytes() == WHOLE
    assert capsys.readouterr().err == "npm pack some-package@1.2.3 (1 MB)\n"
    assert {p.name for p in path.parent.iterdir()} <= {"file.bin", "file.bin.lock"}


@pytest.mark.parametrize(("program", "message"), [
    (["sys.exit('npm error code ENOTFOUND\\nnpm error no such host')"],
     "npm error code ENOTFOUND npm error no such host$"),
    (["open('a.tgz', 'wb').write(whole[:-1])"], "got 511,999 bytes, expected 512,000$"),
    (["open('a.tgz', 'wb').write(whole[:-1] + b'?')"], "with sha256 .* expected"),
    ([], "no archive came$"),
    (["time.sleep(60)"], "not there after 2 s$"),
])
def test_npm_that_fails(program, message, npm, path):
    npm(*program)
    with pytest.raises(DownloadError, match=f"npm package some-package@1.2.3: .*{message}"):
        pack(path, timeout=2)
    assert {p.name for p in path.parent.iterdir()} <= {"file.bin.lock"}


def test_without_npm(path, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DownloadError, match="npm is not installed"):
        pack(path)
