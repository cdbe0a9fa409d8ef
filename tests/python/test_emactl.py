"""The tool emactl: what it prints, where, and with which exit code.

The first part needs no daemon; the second asks for the fixture `daemon` (an object with url, and pid or process).
"""

import json
import math
import os
import re
import signal
import socket
import struct
import subprocess
import uuid

import pytest

from conftest import on_terminal

USAGE, DATA, NO_INPUT, UNAVAILABLE, CANNOT_CREATE, IO, TEMPORARY, NO_PERMISSION = 64, 65, 66, 69, 73, 74, 75, 77
COMMANDS = (
    "ping",
    "status",
    "list",
    "show",
    "top",
    "watch",
    "get",
    "diff",
    "export",
    "import",
    "posthoc",
    "merge",
    "verify",
    "explain",
    "profile",
    "checkpoint",
    "history",
    "rollback",
    "remove",
    "doctor",
)
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
INFINITY, NAN = struct.pack("<f", math.inf), struct.pack("<f", math.nan)


@pytest.fixture(scope="session")
def tool(request):
    try:
        return str(request.getfixturevalue("emactl"))
    except pytest.FixtureLookupError:
        return os.path.join(os.environ.get("EMAD_BUILD", os.path.join(ROOT, "build/release")), "emactl")


@pytest.fixture
def run(tool):
    """Runs the tool to its end and returns what it printed and its exit code."""

    def run_tool(*arguments, **options):
        environment = {**os.environ, "EMAD_SOCKET": "ipc:///nonexistent/emad.sock", **options.pop("environment", {})}
        return subprocess.run(
            [tool, *map(str, arguments)], capture_output=True, text=True, env=environment, timeout=60, check=False,
            stdin=subprocess.DEVNULL, **options,
        )

    return run_tool


def error_of(result):
    """The one JSON error on standard error."""
    lines = result.stderr.splitlines()
    assert len(lines) == 1
    document = json.loads(lines[0])
    assert set(document) == {"error"} and set(document["error"]) == {"code", "name", "message"}
    return document["error"]


# ---- the command line ---------------------------------------------------------------------------------------------


def test_help_lists_every_command_and_exit_code(run):
    result = run("--help")
    assert (result.returncode, result.stderr) == (0, "")
    for word in (*COMMANDS, "EMAD_SOCKET", "NO_COLOR", "--socket", "--timeout", "--json", "--quiet", "--version"):
        assert word in result.stdout
    for code in (64, 65, 66, 69, 70, 73, 74, 75, 77):
        assert f"\n  {code}  " in result.stdout
    assert run("help").stdout == result.stdout == run("-h").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_teaches_it(run, command):
    result = run(command, "--help")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"usage: emactl {command}")
    for part in ("common options:", "examples:", "exit codes:", "JSON:", f"  emactl {command}"):
        assert part in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 110
    assert run("help", command).stdout == run("--help", command).stdout == result.stdout


def test_version_is_one_line_in_any_place(run):
    for arguments in (["--version"], ["-V"], ["list", "--version"]):
        result = run(*arguments)
        assert result.returncode == 0
        assert result.stdout.startswith("emactl ") and result.stdout.count("\n") == 1
    assert list(json.loads(run("--version", "--json").stdout)) == ["version"]


def test_one_grammar_for_all_commands(run):
    """An option has one letter wherever it occurs, a letter one option in a command, and none hides a common one."""
    letters = {}
    common = set(re.findall(r"--([a-z][\w-]*)", run("--help").stdout.split("options, before", 1)[1].split("environment")[0]))
    for command in COMMANDS:
        own, shared = run(command, "--help").stdout.split("common options:")
        own = re.findall(r"^  (?:-(\w), |    )--([a-z][\w-]*)", own.partition("\noptions:")[2], re.M)
        shared = re.findall(r"^  (?:-(\w), |    )--([a-z][\w-]*)", shared.partition("examples:")[0], re.M)
        assert {name for _, name in shared} == common and not common & {name for _, name in own}
        used = [letter for letter, _ in own + shared if letter]
        assert len(used) == len(set(used)), (command, used)
        for letter, name in own:
            assert letters.setdefault(name, letter) == letter, (command, name)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        ([], "a command is missing"),
        (["lst"], "unknown command 'lst'; did you mean 'list'?"),
        (["xport"], "did you mean 'export'?"),
        (["qqqqqqqqqq"], "'emactl --help' lists all"),
        (["list", "--tmeout", "3"], "unknown option '--tmeout'; did you mean '--timeout'?"),
        (["explain", "yolo", "--cals=3"], "unknown option '--cals'; did you mean '--calls'?"),
        (["explain", "yolo", "--st", "3"], "option '--st' may mean several"),
        (["list", "-z"], "unknown option '-z'; 'emactl list --help' lists all"),
        (["--bogusbogus", "list"], "'emactl --help' lists all"),
        (["ping", "--timeout"], "option '--timeout' needs an argument: --timeout SECONDS"),
        (["ping", "--json=2"], "option '--json' takes no argument"),
        (["ping", "--timeout", "soon"], "--timeout takes seconds"),
        (["ping", "--timeout", "0"], "--timeout takes seconds"),
        (["ping", "--timeout", "nan"], "--timeout takes seconds"),
        (["ping", "extra"], "unexpected argument 'extra'"),
        (["show"], "show needs MODEL"),
        (["export"], "export needs MODEL [PROFILE]"),
        (["export", "m"], "-o FILE"),
        (["export", "m:a", "b", "-o", "f"], "two profiles, 'a' and 'b'"),
        (["export", "m", "-o", "-"], "cannot write to standard output"),
        (["export", "m", "-o", "f", "--min-step", "-1"], "--min-step takes a whole number"),
        (["export", "m", "-o", "f", "--dtype", "bf15"], "not served as 'bf15'; the nearest is 'bf16', all are f64, "),
        (["export", "m", "-o", "f", "--dtype", "int8"], "bfloat16"),
        (["posthoc"], "posthoc needs MODEL|FILE..."),
        (["posthoc", "m", "-o", "f"], "posthoc needs the wanted width: --std 0.15"),
        (["posthoc", "m", "--std", "wide", "-o", "f"], "--std takes a number such as 0.15, not 'wide'"),
        (["posthoc", "m", "--std", ".1"], "posthoc needs the file to write: -o FILE"),
        (["posthoc", "m", "--std", ".1", "-o", "-"], "cannot write to standard output"),
        (["posthoc", "m", "--std", ".1", "-n", "--step", "0"], "--step takes a whole number from 1"),
        (["posthoc", "m", "n", "--std", ".1", "-n"], "'n' is one too many; with --files the arguments are files"),
        (["posthoc", "f", "--files", "--from", "d", "--std", ".1", "-n"], "leave --from out"),
        (["posthoc", "f", "--files", "--std", ".3", "-n"], "std is 0.3; it must be from 0.001 to 0.288675"),
        (["merge"], "merge needs FILE..."),
        (["merge", "f"], "merge needs the file to write: -o FILE"),
        (["merge", "f", "-o", "-"], "cannot write to standard output"),
        (["merge", "f", "-n", "--shape", "cubic"], "'cubic' is not one of linear, minus-sqrt, uniform"),
        (["remove"], "remove needs MODEL"),
        (["get", "m"], "get needs MODEL[:PROFILE]|FILE TENSOR"),
        (["get", "m:", "w"], "a profile is missing behind the colon"),
        (["get", "m", "w", "-o", "f"], "get writes a file as --npy alone"),
        (["get", "m", "w", "--npy", "--stats"], "one of --stats and --npy"),
        (["diff", "m"], "diff needs MODEL[:PROFILE]|FILE MODEL[:PROFILE]|FILE"),
        (["diff", "a", "b", "--top", "-1"], "--top takes a whole number"),
        (["watch", "m", "--every", "0"], "--every takes a whole number from 1"),
        (["watch", "m", "--keep", "3"], "--keep goes with --exec"),
        (["watch", "m", "--until-step", "x"], "--until-step takes a whole number"),
        (["top", "--sort", "sped"], "--sort does not know 'sped'; did you mean 'step'?"),
        (["top", "--interval", "0"], "--interval takes seconds from 0.1 to 3600, not '0'"),
        (["verify"], "verify needs PATH"),
        (["explain"], "explain needs SCHEDULE"),
        (["explain", "yolo", "--calls", "0"], "--calls takes a whole number from 1"),
        (["explain", "yolo", "--scale-batch", "0"], "--scale-batch takes how many times as large the batch is"),
        (["explain", "yolo", "--scale-batch", "nan"], "a number above 0, not 'nan'"),
        (["explain", "yolo", "--scale-batch", "1e10"], "give a factor above 0, at most 1e+09"),
        (["explain", "yolo", "--calls", "1.5"], "--calls takes a whole number"),
        (["explain", "yolo", "--calls", "99999999999999999999"], "--calls takes a whole number"),
        (["explain", "yolo", "--every", "0"], "--every takes a whole number from 1"),
        (["explain", "yolo", "--start", "9223372036854775807", "--calls", "2"], "its step is beyond"),
    ],
)
def test_a_wrong_command_line_is_explained(run, arguments, sentence):
    result = run(*arguments)
    assert result.returncode == USAGE
    assert result.stdout == ""
    assert result.stderr.startswith("emactl: ") and result.stderr.count("\n") == 1
    assert sentence in result.stderr


def test_errors_are_json_when_asked_wherever_the_option_stands(run):
    for arguments in (["--json", "lst"], ["lst", "--json"], ["list", "--tmeout", "-j"], ["-j", "show"]):
        result = run(*arguments)
        assert result.returncode == USAGE
        error = error_of(result)
        assert (error["code"], error["name"]) == (-10018, "argument")


def test_control_characters_from_the_command_line_do_not_reach_the_terminal(run):
    result = run("li\x1b[2Jst")
    assert "\x1b" not in result.stderr and "li?[2Jst" in result.stderr


@pytest.mark.parametrize("command", ["ping", "status", "list", "show m", "remove m", "export m -o f", "posthoc m --std .1 -o f", "top", "watch m",
     "get m w", "diff m m:slow"])
def test_without_a_daemon_every_online_command_says_so(run, tmp_path, command):
    command = command.split()
    result = run(*command, "--timeout", "0.2", cwd=tmp_path)
    assert result.returncode == UNAVAILABLE
    assert result.stdout == "" and result.stderr.startswith("emactl: ")
    assert os.listdir(tmp_path) == []
    assert error_of(run("--json", *command, "--timeout", "0.2", cwd=tmp_path))["name"] == "away"


# ---- pipes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", ["--help", "explain -l", "explain yolo -n 1e9 -q", "explain yolo -n 1e9 --json"])
@pytest.mark.parametrize("restore_signals", [True, False])
def test_a_reader_that_goes_away_is_no_error(tool, arguments, restore_signals):
    process = subprocess.Popen(
        [tool, *arguments.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, restore_signals=restore_signals
    )
    assert process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=30) == 0


def test_a_full_disk_is_an_error(tool):
    with open("/dev/full", "wb") as full:
        result = subprocess.run([tool, "-h"], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert result.returncode == IO
    assert "standard output" in result.stderr


def test_a_closed_standard_output_is_an_error(tool):
    script = 'exec "$0" --version >&-'
    result = subprocess.run(["sh", "-c", script, tool], stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert result.returncode == IO


# ---- explain ------------------------------------------------------------------------------------------------------


def explained(run, *arguments):
    result = run("explain", *arguments, "--json")
    assert (result.returncode, result.stderr) == (0, "")
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_explain_prints_the_decays_of_the_reference_class(run):
    calls = explained(run, "yolo", "--calls", "20")
    assert [call["n"] for call in calls] == list(range(1, 21))
    for call in calls:
        assert set(call) == {"n", "action", "decay"} and call["action"] == "lerp"
        assert abs(call["decay"] - 0.9999 * (1 - math.exp(-call["n"] / 2000))) < 1e-15


def test_explain_shows_copies_and_pauses(run):
    calls = explained(run, "ema-pytorch", "--calls", "111")
    assert [call["n"] for call in calls if call["action"] == "copy"] == list(range(1, 102, 10))
    assert calls[0]["decay"] == 0.0
    assert {call["decay"] for call in calls if call["action"] == "noop"} == {1.0}
    assert calls[110]["action"] == "lerp" and round(calls[110]["decay"], 6) == 0.797820
    assert run("explain", "keras", "-n", "1", "--json").stdout == '{"n":1,"action":"copy","decay":0.0}\n'


def test_explain_counts_steps_for_schedules_that_look_at_them(run):
    (call,) = explained(run, "power:std=0.1", "--start", "2", "--calls", "1", "--step-delta", "2048")
    assert call["step"] == 4096
    (same,) = explained(run, "power:std=0.1", "--start", "2", "--calls", "1")
    assert same["step"] == 2 and same["decay"] == call["decay"]


def test_explain_thins_out(run):
    calls = explained(run, "yolo", "--start", "1000", "--calls", "1e9", "--every", "250000000")
    assert [call["n"] for call in calls] == [1000, 250001000, 500001000, 750001000]
    assert calls[-1]["decay"] == 0.9999


def test_explain_reaches_the_last_number(run):
    (call,) = explained(run, "yolo", "--start", 2**63 - 1, "--calls", "1")
    assert call == {"n": 2**63 - 1, "action": "lerp", "decay": 0.9999}


def test_explain_shows_where_a_schedule_comes_from_and_its_keys(run):
    result = run("explain", "timm:warmup=1", "--calls", "3")
    assert (result.returncode, result.stderr) == (0, "")
    head, keys, calls = result.stdout.split("\n\n")
    assert "timm:warmup=1" in head and "lerp" in head
    assert [line.split()[0] for line in keys.splitlines()][:2] == ["KEY", "decay"]
    warmup = next(line for line in keys.splitlines() if line.startswith("warmup"))
    assert warmup.split()[1:3] == ["1", "0"]
    assert calls.splitlines()[0].split() == ["CALL", "ACTION", "DECAY", "HORIZON", "KEPT"]
    assert calls.splitlines()[1].split() == ["1", "copy", "0", "1", "0"]
    assert run("explain", "timm:warmup=1", "--calls", "3", "--quiet").stdout.splitlines() == calls.splitlines()[1:]


def test_explain_multiplies_all_decays_into_what_is_kept(run):
    lines = run("explain", "constant:decay=0.5", "-n", "9", "--every", "4", "-q").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["1", "lerp", "0.5", "2", "0.5"],
        ["5", "lerp", "0.5", "2", "0.03125"],
        ["9", "lerp", "0.5", "2", "0.00195312"],
    ]


def test_explain_lists_schedules_that_it_explains(run):
    result = run("explain", "--list")
    assert result.stdout == run("explain", "list").stdout
    names = [line.split()[0] for line in result.stdout.splitlines()[1:]]
    assert {"constant", "yolo", "timm", "diffusers", "power"} <= set(names)
    assert run("explain", "--list", "--quiet").stdout.split() == names
    documents = explained(run, "--list")
    assert [document["name"] for document in documents] == names
    for document in documents:
        assert document["formula"] and document["source"] and document["form"] in ("lerp", "mul-add", "sub")
        assert {"name", "aliases", "default", "minimum", "maximum", "text"} <= set(document["keys"][0])
        assert len(explained(run, document["name"])) == 10


def test_explain_prints_one_object_a_call_and_nothing_else(run):
    for schedule in ("ema-pytorch", "optax", "yolo:begin=3,cadence=2", "ema=timm;copy=*.x;average@0.5=y"):
        calls = explained(run, schedule, "--calls", "25")
        assert [call["n"] for call in calls] == list(range(1, 26))
        for call in calls:
            assert set(call) == {"n", "action", "decay"} and isinstance(call["decay"], float)
            assert call["action"] == {0.0: "copy", 1.0: "noop"}.get(call["decay"], "lerp")


def test_explain_counts_from_begin_and_by_the_cadence(run):
    calls = explained(run, "torch-ema:begin=20,cadence=3", "--calls", "12", "--step-delta", "10")
    assert [call["action"] for call in calls] == ["copy"] * 2 + ["noop", "noop", "lerp"] * 3 + ["noop"]
    for number, call in enumerate((call for call in calls if call["action"] == "lerp"), 1):
        assert call["decay"] == pytest.approx((1 + number) / (10 + number), abs=1e-15)


@pytest.mark.parametrize("schedule", ["yolo:begin=7,cadence=3", "optax", "paddle", "timm:warmup=1,begin=30", "power"])
def test_explain_jumps_to_where_calls_one_by_one_lead(run, schedule):
    calls = explained(run, schedule, "--calls", "120", "--step-delta", "2")
    for start in (1, 2, 15, 16, 17, 100):
        (call,) = explained(run, schedule, "--start", start, "--calls", "1", "--step-delta", "2")
        expected = calls[start - 1]
        assert call["action"] == expected["action"] and call["decay"] == pytest.approx(expected["decay"], abs=1e-13)


def test_explain_divides_out_a_start_at_zero(run):
    calls = explained(run, "optax:decay=0.9", "--calls", "50")
    average = total = 0.0
    for call in calls:
        value = math.sin(call["n"])
        average = call["decay"] * average + (1 - call["decay"]) * value
        total = 0.9 * total + 0.1 * value
        assert average == pytest.approx(total / (1 - 0.9 ** call["n"]), abs=1e-14)
    assert "at zero, divided out" in run("explain", "optax").stdout
    assert "starts     at zero\n" in run("explain", "optax:debias=0").stdout


def test_explain_tells_what_a_profile_does(run):
    result = run("explain", "ema=yolo:begin=500,precision=f64,cadence=2,snapshot=100,keep=3;copy=*.x;average@.99=lora_*")
    assert (result.returncode, result.stderr) == (0, "")
    head, rules, keys, _ = result.stdout.split("\n\n")
    assert [line.split()[0] for line in head.splitlines()] == [
        "profile", "schedule", "at", "form", "buffers", "precision", "begins", "counts", "on", "at", "follows"
    ]
    assert "kept in float64" in head and "up to step 500" in head
    assert [line.split() for line in rules.splitlines()] == [
        ["RULE", "TENSORS", "BECOME"],
        ["1", "*.x", "copied"],
        ["2", "lora_*", "averaged", "with", "decay", "0.99"],
        ["-", "all", "others", "as", "the", "schedule's", "library", "treats", "them"],
    ]
    assert keys.startswith("KEY")
    result = run("explain", "ema=yolo;frieze=x")
    assert result.returncode == DATA and "did you mean 'freeze'?" in result.stderr


def scaled(run, specification, factor):
    (document,) = explained(run, specification, "--scale-batch", factor)
    return document


def test_explain_scales_a_schedule_for_another_batch(run):
    document = scaled(run, "yolo", "8")
    assert (document["specification"], document["factor"]) == ("yolo", 8.0)
    name, _, keys = document["scaled"].partition(":")
    keys = dict(pair.split("=") for pair in keys.split(","))
    assert name == "yolo" and float(keys["decay"]) == pytest.approx(0.9999**8, abs=1e-15) and keys["tau"] == "250"
    assert [key["key"] for key in document["keys"]] == ["decay", "tau", "updates"]
    assert all(set(key) == {"key", "before", "after", "why"} and key["why"] for key in document["keys"])
    assert document["keys"][1] | {"why": ""} == {"key": "tau", "before": 2000.0, "after": 250.0, "why": ""}
    # and back again
    assert scaled(run, document["scaled"], "0.125")["scaled"] == "yolo"
    assert run("explain", "yolo", "--scale-batch", "8", "-q").stdout == document["scaled"] + "\n"
    text = run("explain", "yolo", "--scale-batch", "8").stdout
    assert document["scaled"] in text and "value^K" in text and "BEFORE" in text


def test_explain_scales_the_decays_of_rules_too(run):
    document = scaled(run, "e=constant:decay=0.5;copy=x;average@0.25=y", "2")
    assert document["scaled"] == "e=constant:decay=0.25;copy=x;average@0.0625=y"
    assert document["keys"][-1] | {"why": ""} == {"key": "average@", "before": 0.25, "after": 0.0625, "why": ""}
    document = scaled(run, "power:std=0.1", "2")
    assert document["scaled"] == "power:std=0.1" and document["keys"][1]["before"] is None
    assert "nothing changes" in run("explain", "power", "-b", "2").stdout


def test_explain_says_why_a_schedule_cannot_be_scaled(run):
    for schedule, why in (("swa", "same share of the run"), ("torch-ema", "with use_num_updates=0 it can be")):
        result = run("explain", schedule, "--scale-batch", "8")
        assert result.returncode == DATA and why in result.stderr and result.stdout == ""
    assert error_of(run("explain", "swa", "--scale-batch", "8", "--json"))["name"] == "schedule"


def test_the_page_on_schedules_is_what_explain_prints(run):
    with open(os.path.join(ROOT, "proto/SCHEDULES.md"), encoding="utf-8") as page:
        assert run("explain", "--reference").stdout == page.read(), "run 'make schedules'"


def test_the_page_on_schedules_shows_every_schedule_and_key(run):
    page = run("explain", "--reference").stdout
    sections = {part.split("\n", 1)[0]: part for part in page.split("\n### ")[1:]}
    documents = explained(run, "--list")
    assert list(sections) == [document["name"] for document in documents]
    for document in documents:
        section = sections[document["name"]]
        assert f"](#{document['name']})" in page
        assert document["text"] in section and document["source"] in section
        for key in document["keys"]:
            assert f"| `{key['name']}` |" in section and key["text"] in section
            assert all(f"`{alias}`" in section for alias in key["aliases"])
        plots = section.split("```text\n")[1:]
        assert len(plots) == 2
        for plot in plots:
            lines = plot.split("\n")
            assert all(line[9] == "│" and len(line) <= 70 for line in lines[:8]) and lines[8][9] == "└"
        assert any("█" in plot for plot in plots)


def test_explain_rejects_a_schedule_that_is_not_valid(run):
    result = run("explain", "yolo:decey=1")
    assert result.returncode == DATA and "decay" in result.stderr
    assert error_of(run("explain", "yolo:decay=2", "--json"))["name"] == "schedule"


# ---- verify -------------------------------------------------------------------------------------------------------


def image(tensors, metadata=None):
    """A safetensors file: name -> (dtype, shape, bytes)."""
    header, data = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [len(data), len(data) + len(values)]}
        data += values
    if metadata:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file.safetensors"

    def write(content):
        path.write_bytes(content)
        return path

    return write


GOOD = {
    "w": ("F32", [2, 3], struct.pack("<6f", *range(6))),
    "empty": ("F64", [0, 4], b""),
    "scalar": ("BF16", [], b"\x80\x3f"),
    "counts": ("I64", [2], b"\xff" * 16),
}


def test_verify_describes_a_good_file(run, file):
    path = file(image(GOOD, {"format": "pt", "emad.model": "run42/net", "emad.step": "7"}))
    result = run("verify", path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith(f"{path}: good\n")
    for line in ("tensors 4", "parameters 9", "emad.model run42/net", "emad.step 7", "F32 1 6 24 B"):
        assert line.split() in [printed.split() for printed in result.stdout.splitlines()]
    assert run("verify", "--quiet", path).stdout == ""

    document = json.loads(run("verify", "--json", path).stdout)
    assert document["is_good"] is True and document["reason"] is None
    assert document["file_bytes"] == os.path.getsize(path) == document["header_bytes"] + document["payload_bytes"]
    assert document["metadata"] == {"format": "pt", "emad.model": "run42/net", "emad.step": "7"}
    assert document["dtypes"]["I64"] == {"tensors": 1, "parameters": 2, "payload_bytes": 16}
    assert (document["tensors"], document["parameters"], document["nan"]) == (4, 9, 0)


def test_verify_finds_nan_and_tells_of_infinity(run, file):
    path = file(image({**GOOD, "bad": ("F32", [4], NAN + INFINITY + NAN + b"\0\0\0\0")}, {"note": "\x1b[31mred"}))
    result = run("verify", path)
    assert result.returncode == DATA
    assert "2 values in 1 of its 5 tensors are NaN" in result.stderr
    assert ["note", "?[31mred"] in [line.split() for line in result.stdout.splitlines()]
    result = run("verify", "--json", path)
    assert result.returncode == DATA and error_of(result)["name"] == "corrupt"
    document = json.loads(result.stdout)
    assert document["is_good"] is False and (document["nan"], document["infinite"]) == (2, 1)
    assert document["nonfinite_tensors"] == [{"name": "bad", "dtype": "F32", "shape": [4], "nan": 2, "infinite": 1}]
    assert document["metadata"] == {"note": "\x1b[31mred"}


def test_verify_does_not_call_infinity_damage(run, file):
    path = file(image({"mask": ("F32", [1], INFINITY)}))
    result = run("verify", path)
    assert result.returncode == 0 and "mask" in result.stdout


def test_verify_counts_across_its_chunks(run, file):
    values = (struct.pack("<3f", 0, 1, 2) + NAN) * 500_000
    document = json.loads(run("verify", "--json", file(image({"w": ("F32", [2_000_000], values)}))).stdout)
    assert document["nan"] == 500_000


def test_verify_rejects_every_cut(run, file):
    whole = image(GOOD)
    for length in {0, 1, 7, 8, 9, len(whole) // 2, len(whole) - 1}:
        result = run("verify", file(whole[:length]))
        assert result.returncode == DATA, length
        assert result.stdout == "" and result.stderr.count("\n") == 1
    assert run("verify", file(whole + b"\0")).returncode == DATA
    assert run("verify", file(b"\xff" * 100)).returncode == DATA


def test_verify_checks_all_files_and_reports_the_first_failure(run, file, tmp_path):
    good = file(image(GOOD))
    result = run("verify", tmp_path / "absent", good, "/dev/null", tmp_path)
    assert result.returncode == NO_INPUT
    assert len(result.stderr.splitlines()) == 3
    assert f"{good}: good" in result.stdout
    documents = [json.loads(line) for line in run("verify", "--json", good, tmp_path).stdout.splitlines()]
    assert [document["is_good"] for document in documents] == [True, False]


def test_verify_does_not_wait_for_a_pipe(run, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert run("verify", tmp_path / "pipe").returncode == USAGE


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_verify_says_when_a_file_may_not_be_read(run, file):
    path = file(image(GOOD))
    os.chmod(path, 0)
    assert run("verify", path).returncode == NO_PERMISSION


# ---- terminals ----------------------------------------------------------------------------------------------------


def test_colours_are_for_terminals_alone(tool, run):
    assert "\x1b" not in run("explain", "yolo").stdout
    assert "\x1b[1m" in on_terminal(tool, "explain", "yolo")[0]
    assert "\x1b" not in on_terminal(tool, "explain", "yolo", environment={"NO_COLOR": "1"})[0]
    assert "\x1b" not in on_terminal(tool, "explain", "yolo", environment={"TERM": "dumb"})[0]


# ---- with a daemon ------------------------------------------------------------------------------------------------


def pid_of(daemon):
    return daemon.pid if hasattr(daemon, "pid") else daemon.process.pid


@pytest.fixture
def ask(run, daemon):
    def ask_daemon(*arguments, **options):
        return run("--socket", daemon.url, *arguments, **options)

    return ask_daemon


@pytest.fixture
def model(daemon):
    """A model with two averages, three snapshots old; its name."""
    emad = pytest.importorskip("emad")
    numpy = pytest.importorskip("numpy")
    name = f"emactl/{uuid.uuid4().hex[:8]}"
    state = {"w": numpy.zeros((64, 3), numpy.float32), "nb": numpy.zeros((), numpy.int64)}
    with emad.Client(daemon.url) as client:
        trainer = client.trainer(
            name, state, profiles={"ema": "constant:decay=0.5", "slow": "yolo"}, attributes={"nc": 80}, buffers=["nb"]
        )
        for step in range(1, 4):
            state["w"] += 1
            trainer.push(step, state, wait=True)
        yield name
        trainer.close()
        try:
            client.remove(name)
        except emad.NoModelError:
            pass


def test_ping_says_who_answers(ask, daemon):
    result = ask("ping")
    assert (result.returncode, result.stderr) == (0, "")
    assert "answered in" in result.stdout and f"pid {pid_of(daemon)}" in result.stdout
    assert ask("ping", "--quiet").stdout == ""
    document = json.loads(ask("ping", "--json").stdout)
    assert document["pid"] == pid_of(daemon) and document["instance"] > 0
    assert set(document) == {"agent", "instance", "pid", "uptime_ms", "round_trip_us"}


def test_the_environment_names_the_daemon(run, daemon):
    assert run("ping", environment={"EMAD_SOCKET": daemon.url}).returncode == 0
    assert run("ping", "-s", daemon.url.removeprefix("ipc://")).returncode == 0


DOCTOR_CHECKS = {
    "daemon", "version", "socket", "attach socket", "memory", "control group", "open files", "state directory",
    "locked memory", "huge pages", "kernel", "clock", "NNG",
}


def test_doctor_looks_at_everything(ask, daemon):
    result = ask("doctor", "--json")
    report = json.loads(result.stdout)
    assert {check["name"] for check in report["checks"]} == DOCTOR_CHECKS
    assert report["healthy"] == (report["fail"] == 0) and result.returncode == (0 if report["healthy"] else 1)
    for check in report["checks"]:
        assert (check["fix"] is None) == (check["verdict"] == "ok") and check["text"]
    verdicts = {check["name"]: check for check in report["checks"]}
    for name in ("daemon", "version", "socket", "attach socket", "kernel"):
        assert verdicts[name]["verdict"] == "ok", verdicts[name]
    assert str(daemon.directory) in verdicts["state directory"]["text"]
    text = ask("doctor").stdout
    assert all(re.search(rf"^(ok|warn|fail) +{name} ", text, re.M) for name in DOCTOR_CHECKS), text
    assert not re.search(r"^ok", ask("doctor", "--quiet").stdout, re.M)


def test_doctor_says_what_to_do_when_the_daemon_is_away(run, tmp_path):
    result = run("doctor", "--socket", f"ipc://{tmp_path}/emad.sock", "--timeout", "0.2")
    assert (result.returncode, result.stderr) == (1, "")
    assert "fail  daemon" in result.stdout and "-> sudo systemctl start emad" in result.stdout
    assert f"cannot use {tmp_path}/attach.sock: No such file" in result.stdout
    report = json.loads(run("doctor", "--json", "--timeout", "0.2").stdout)
    assert not report["healthy"] and "memory" not in {check["name"] for check in report["checks"]}


def test_status_shows_the_daemon_and_its_counters(ask, daemon, model):
    document = json.loads(ask("status", "--json").stdout)
    assert document["pid"] == pid_of(daemon) and document["models"] >= 1
    assert document["counters"] and all(isinstance(value, int) for value in document["counters"].values())
    result = ask("status")
    assert (result.returncode, result.stderr) == (0, "")
    words = [line.split() for line in result.stdout.splitlines()]
    assert ["pid", str(pid_of(daemon))] in words
    assert ["COUNTER", "VALUE"] in words
    for name in ("agent", "up", "workers", "kernel", "models", "memory"):
        assert any(line[0] == name and line[-1] != "-" for line in words if line)


def test_list_has_a_line_for_each_model(ask, model):
    result = ask("list")
    assert (result.returncode, result.stderr) == (0, "")
    head, *rows = result.stdout.splitlines()
    assert head.split()[0] == "MODEL"
    row = next(row for row in rows if row.split()[0] == model)
    assert " - " not in row and row.split()[1] == "ema,slow" and row.endswith(" ago")
    assert model in ask("list", "--quiet").stdout.split()

    document = next(d for d in map(json.loads, ask("list", "--json").stdout.splitlines()) if d["model"] == model)
    assert document["profiles"] == ["ema", "slow"]
    assert (document["step"], document["tensors"], document["refused"]) == (3, 2, 0)
    assert (document["world"], document["ranks_attached"]) == (1, 1)


def test_show_has_every_table(ask, model):
    result = ask("show", model, "--tensors", "--stages")
    assert (result.returncode, result.stderr) == (0, "")
    facts, checkpoint, *tables = result.stdout.split("\n\n")
    assert ["model", model] in [line.split() for line in facts.splitlines()]
    assert checkpoint.startswith("checkpoint step")
    assert [table.split()[0] for table in tables] == ["PROFILE", "RANK", "RANK", "SLOT", "TENSOR"]
    assert ["ema", "3", "3", "lerp", "0.5"] == tables[0].splitlines()[1].split()[:5]
    assert tables[0].splitlines()[1].endswith(" ema=constant:decay=0.5")
    assert "current" in tables[3] and "[64,3]" in tables[4]
    document = json.loads(ask("show", model, "--json").stdout)
    assert document["attributes"] == {"nc": 80}
    assert document["profiles"][0]["decay"] == 0.5


def test_a_model_that_is_not_there_is_no_input(ask, tmp_path):
    for command in (
        ["show", "no/such"], ["remove", "no/such"], ["export", "no/such", "-o", tmp_path / "f"],
        ["posthoc", "no/such", "--std", "0.1", "-o", tmp_path / "f"],
    ):
        result = ask(*command)
        assert result.returncode == NO_INPUT and "no/such" in result.stderr
        assert error_of(ask("--json", *command))["name"] == "no-model"
    assert ask("show", "not allowed").returncode == USAGE


def test_export_writes_what_verify_finds_good(ask, run, model, tmp_path):
    path = tmp_path / "a b.safetensors"
    result = ask("export", model, "-o", path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{path}: ") and "step 3" in result.stdout
    assert os.listdir(tmp_path) == [path.name]
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + struct.unpack_from("<Q", content)[0]])
    begin = 8 + struct.unpack_from("<Q", content)[0] + header["w"]["data_offsets"][0]
    assert struct.unpack_from("<f", content, begin)[0] == 2.125  # 0 -> .5 -> 1.25 -> 2.125

    document = json.loads(run("verify", path, "--json").stdout)
    assert document["is_good"] and document["metadata"]["emad.step"] == "3"
    document = json.loads(ask("export", f"{model}:slow", "--json", "-o", path).stdout)
    assert document["model"] == model
    document = json.loads(ask("export", model, "slow", "--json", "-o", path).stdout)
    assert (document["profile"], document["step"], document["file_bytes"]) == ("slow", 3, os.path.getsize(path))


@pytest.mark.parametrize(
    ("dtype", "short", "bits"),
    [("bf16", "BF16", b"\x08\x40"), ("Float16", "F16", b"\x40\x40"), ("F64", "F64", struct.pack("<d", 2.125)),
     ("float8_e5m2", "F8_E5M2", b"\x40")],
)  # fmt: skip
def test_export_converts_to_the_dtype_asked_for(ask, run, model, tmp_path, dtype, short, bits):
    path = tmp_path / "f"
    result = ask("export", model, "-o", path, "--dtype", dtype)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"{path}: {short}, ")
    content = path.read_bytes()
    begin = 8 + struct.unpack_from("<Q", content)[0]
    header = json.loads(content[8:begin])
    assert (header["w"]["dtype"], header["nb"]["dtype"]) == (short, "I64")
    first = begin + header["w"]["data_offsets"][0]
    assert content[first : first + len(bits)] == bits
    document = json.loads(run("verify", path, "--json").stdout)
    assert document["is_good"] and document["metadata"]["emad.dtype"] == short
    assert set(document["dtypes"]) == {short, "I64"}


def test_export_warns_of_values_that_are_too_large(ask, daemon, run, tmp_path):
    emad = pytest.importorskip("emad")
    numpy = pytest.importorskip("numpy")
    name, path = f"emactl/{uuid.uuid4().hex[:8]}", tmp_path / "f"
    state = {"a": numpy.ones(3, numpy.float32), "net.large": numpy.array([1e6, -1e6, 1], numpy.float32)}
    with emad.Client(daemon.url) as client:
        client.trainer(name, state).close()
        result = ask("export", name, "-o", path, "-d", "f16")
        assert result.returncode == 0
        assert result.stderr == (
            "warning: 2 values are too large for F16 and became infinite, the first of them in tensor 'net.large'\n"
        )
        assert "2 values are too large for F8_E4M3 and became 448" in ask(
            "export", name, "-o", path, "-d", "f8_e4m3"
        ).stderr
        document = json.loads(ask("export", name, "-o", path, "-d", "f16", "--json").stdout)
        assert (document["dtype"], document["overflows"], document["overflow_tensor"]) == ("F16", 2, "net.large")
        assert json.loads(run("verify", path, "--json").stdout)["infinite"] == 2
        document = json.loads(ask("export", name, "-o", path, "--json").stdout)
        assert (document["dtype"], document["overflows"], document["overflow_tensor"]) == (None, 0, None)
        client.remove(name)


def test_export_leaves_the_file_alone_when_it_fails(ask, model, tmp_path):
    path = tmp_path / "old"
    path.write_text("old")
    assert ask("export", model, "nosuch", "-o", path).returncode == NO_INPUT
    assert ask("export", model, "-o", tmp_path / "absent" / "file").returncode == CANNOT_CREATE
    assert ask("export", model, "-o", path / "file").returncode == CANNOT_CREATE
    result = ask("export", model, "-o", path, "--min-step", "1000", "--timeout", "0.3")
    assert result.returncode == TEMPORARY
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["old"]


def test_export_on_a_terminal_leaves_only_the_result(ask, tool, daemon, model, tmp_path):
    printed, code = on_terminal(tool, "--socket", daemon.url, "export", model, "-o", tmp_path / "f")
    assert code == 0
    assert printed.rsplit("\r\x1b[K", 1)[-1].startswith(f"{tmp_path}/f: ")


def test_an_interrupt_while_waiting_ends_export_at_once(tool, daemon, model, tmp_path):
    process = subprocess.Popen(
        [tool, "--socket", daemon.url, "export", model, "-o", str(tmp_path / "f"), "--min-step", "1000", "-t", "60"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == -signal.SIGINT
    assert os.listdir(tmp_path) == []


def test_remove_forgets_the_model(ask, model):
    document = json.loads(ask("remove", model, "--json").stdout)
    assert document["model"] == model and document["freed_bytes"] > 0
    assert model not in ask("list", "--quiet").stdout.split()
    assert ask("remove", model).returncode == NO_INPUT


def test_an_answer_that_does_not_come_is_a_matter_of_time(run, tmp_path):
    # A listener that accepts and says nothing is no daemon, but it is somebody.
    path = tmp_path / "emad.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        result = run("ping", "--socket", f"ipc://{path}", "--timeout", "0.3")
    assert result.returncode in (UNAVAILABLE, TEMPORARY)
    assert result.stderr.startswith("emactl: ")
