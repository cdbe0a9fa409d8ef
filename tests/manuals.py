#!/usr/bin/env python3
"""
The manual pages say what the programs say.

Their prose is written by hand; what lists options, commands, settings, functions and messages stands between two
comments, and is made here of what the programs print and of the headers. Without an argument this is a test: the pages
are up to date, refer to pages that there are, and are good mdoc. `tests/manuals.py --write` (`make manuals`) brings
them up to date. A checker of mdoc that is not installed is a skipped test.
"""
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAMS = os.path.join(ROOT, "build", os.environ.get("BUILD", "release"))
PAGES = {
    "emactl.1": "client/emactl/emactl.1",
    "libemad.3": "client/libemad.3",
    "emad.conf.5": "daemon/emad.conf.5",
    "emad-protocol.7": "proto/emad-protocol.7",
    "emad.8": "daemon/emad.8",
}
BEGIN, END = '.\\" begin generated: ', '.\\" end generated'


def printed(program, *arguments):
    """What a program prints; the same wherever it runs."""
    environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
    return subprocess.run(
        [os.path.join(PROGRAMS, program), *arguments], env=environment, capture_output=True, text=True, check=True,
        stdin=subprocess.DEVNULL, timeout=60,
    ).stdout


def source(path):
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        return file.read()


# ---- mdoc ---------------------------------------------------------------------------------------------------------


def escaped(text, is_literal=False):
    text = text.replace("\\", "\\e").replace("\t", "        ")
    if is_literal:
        for character, name in (("'", "\\(aq"), ("`", "\\(ga"), ("^", "\\(ha"), ("~", "\\(ti"), ("-", "\\-")):
            text = text.replace(character, name)
    return "\\&" + text if text[:1] in (".", "'") else text


def argument(text):
    """One argument of a macro: never taken for a macro itself."""
    return '"' + escaped(text, True).replace('"', "\\(dq") + '"'


def literal(lines):
    return [".Bd -literal -offset 2n", *(escaped(line, True) for line in lines), ".Ed"]


def flowing(text):
    """Paragraphs as running text; what is indented as it stands."""
    lines, block, running, wants_break = [], [], [], False
    for line in [*text.strip("\n").split("\n"), "", "  ", ""]:
        if running and (line.startswith("  ") or not line.strip()):
            lines += [*([".Pp"] if wants_break else []), *sentences(" ".join(running))]
            running, wants_break = [], False
        if block and not line.startswith("  "):
            lines += literal(block)
            block, wants_break = [], True
        if not line.strip():
            wants_break = bool(lines)
        elif line.startswith("  "):
            block.append(line)
        else:
            running.append(line.strip())
    return lines


def sentences(text):
    """Each in a line of its own, as mdoc wants it."""
    return [escaped(sentence) for sentence in re.split(r"(?<=[a-z0-9)\]\"'A-Z/-][.!?]) +(?=\S)|(?<=[.!?][)\"']) +(?=\S)", text)]


def items(pairs, is_compact=False):
    """A list of terms (mdoc lines) with texts."""
    lines = [".Bl -tag -width Ds" + (" -compact" if is_compact else "")]
    for term, text in pairs:
        lines += [f".It {term}", *sentences(text)]
    return [*lines, ".El"]


# ---- what the programs say ------------------------------------------------------------------------------------------

OPTION = re.compile(r"^ +(?:-(\w), | {4})--([\w-]+)(?: ([A-Z|]+))?  +(\S.*)$|^ +(?:-(\w), | {4})--([\w-]+) ([A-Z]+) (\S.*)$")


def options(text):
    """[(letter, name, argument, text)] of an indented list of options, with what goes on in further lines."""
    found = []
    for line in text.split("\n"):
        match = OPTION.match(line)
        if match:
            letter, name, what, meaning = [value for value in (match.groups()[:4] if match.group(2) else match.groups()[4:])]
            found.append([letter, name, what, meaning])
        elif found and line.startswith(" " * 20):
            found[-1][3] += " " + line.strip()
    return found


def option_items(text):
    pairs = []
    for letter, name, what, meaning in options(text):
        if name == "KEY":  # any setting; those have a page of their own
            continue
        term = f"Fl {letter} , " if letter else ""
        pairs.append((f"{term}Fl \\-{name}" + (f" Ar {what}" if what else ""), meaning))
    return items(pairs)


def help_parts(text):
    """A command's help by its parts: usage, text, options, examples, exit codes."""
    usage, rest = text.split("\n", 1)
    parts = {"usage": usage.removeprefix("usage: ")}
    title = "text"
    for line in rest.split("\n"):
        if re.fullmatch(r"(common )?options:|examples:|exit codes.*:|commands:|environment:|options, before.*:", line):
            title = line.rstrip(":")
            continue
        parts[title] = parts.get(title, "") + line + "\n"
    return parts


def exits(text):
    """Codes with their meanings, and what is said of them behind."""
    lines = [line for line in text.rstrip("\n").split("\n") if line.strip()]
    pairs = []
    for line in lines:
        code = re.match(r"^  (\d+) +(.*)$", line)
        if code:
            pairs.append([code.group(1), code.group(2)])
        elif pairs:
            pairs[-1][1] += " " + line.strip()
    return items(pairs, True)


def command_names():
    overview = help_parts(printed("emactl", "--help"))
    return [line.split()[0] for line in overview["commands"].split("\n") if re.match(r"^  [a-z]", line)]


def emactl_commands():
    lines = []
    for name in command_names():
        parts = help_parts(printed("emactl", name, "--help"))
        lines += [f".Ss {argument(parts['usage'].removeprefix('emactl ').removesuffix(' [OPTIONS]'))}"]
        lines += flowing(parts["text"])
        if "options" in parts:
            lines += option_items(parts["options"])
        lines += [".Pp", "Examples:", *literal(parts["examples"].strip("\n").split("\n"))]
        lines += [".Pp", "Exit status:", *exits(parts["exit codes"])]
    return lines


def emactl_common():
    return option_items(help_parts(printed("emactl", "ping", "--help"))["common options"])


def emactl_exits():
    overview = printed("emactl", "--help")
    return exits(overview[overview.index("exit codes") :].split("\n", 1)[1])


def emad_options():
    text = printed("emad", "--help")
    return option_items(text[: text.index("Clients find it")])


def emad_settings():
    """[(section, introduction, [(key, default, text)])] of the file of defaults."""
    sections, comment = [], []
    for line in printed("emad", "--default-config").split("\n"):
        section = re.fullmatch(r"#?\[([\w ]+)\]", line)
        key = re.fullmatch(r"#([\w-]+)=(.*)", line)
        if section:
            sections.append((section.group(1), comment, []))
        elif key and sections:
            sections[-1][2].append((key.group(1), key.group(2), " ".join(comment)))
        if line.startswith("# ") and not section:
            comment.append(line[2:])
        elif line == "#" and comment:
            comment.append("")
        else:
            comment = [] if not section and not (line == "" and comment and not sections) else comment
        if section or key:
            comment = []
    return sections


def conf_settings():
    lines = []
    for section, introduction, keys in emad_settings():
        lines.append(f".Ss {argument('[' + section + ']')}")
        if section.startswith("model"):
            lines += flowing("\n".join(line if line.strip() else "" for line in introduction))
        lines += items(
            (f"Cm {argument(key)} Ns = Ns Ar " + (argument(default) if default else "VALUE"), text)
            for key, default, text in keys
        )
    return lines


# ---- what the headers say -------------------------------------------------------------------------------------------


def comment_text(comment):
    body = comment.removeprefix("/*").removesuffix("*/")
    return "\n".join(re.sub(r"^\s*\* ?", "", line) for line in body.strip().split("\n"))


def header_sections():
    """emad.h from its first section on: [(title, [(comment, declarations)])]."""
    text = source("client/emad.h")
    text = text[text.index("/* ---- codes") : text.index("#ifdef __cplusplus\n}")]
    sections = []
    for part in re.split(r"^/\* -+ ", text, flags=re.M)[1:]:
        title, body = part.split(" -", 1)
        body = body.split("\n", 1)[1]
        entries = []
        for piece in re.split(r"\n(?=/\*)", body.strip("\n")):
            match = re.match(r"(/\*.*?\*/)\n(.*)\Z", piece, re.S)
            comment, code = (match.group(1), match.group(2)) if match and piece.startswith("/*") else ("", piece)
            entries.append((comment_text(comment) if comment else "", code.strip("\n")))
        sections.append((title, entries))
    return sections


def header_declarations():
    lines = []
    for title, entries in header_sections():
        lines.append(f".Ss {argument(title)}")
        for comment, code in entries:
            if comment:
                lines += [*([] if lines[-1].startswith(".Ss") else [".Pp"]), *flowing(comment)]
            if code:
                lines += literal(line.expandtabs(8) for line in code.split("\n"))
    return lines


def functions():
    """The names that a program may call, in the order of the header."""
    return list(dict.fromkeys(re.findall(r"^(?!typedef)[a-z].*?\b(emad_\w+)\(", source("client/emad.h"), re.M)))


def header_functions():
    return [".Bd -ragged -offset 2n", *(f".Fn {name} ," for name in functions()[:-1]), f".Fn {functions()[-1]}", ".Ed"]


def table(section):
    """The first table of a section of PROTOCOL.md, without its heading."""
    text = source("proto/PROTOCOL.md")
    text = text[text.index(f"\n## {section}\n") :]
    rows = re.search(r"\n\|[^\n]*\n\|[-|]+\n((?:\|[^\n]*\n)+)", text).group(1)
    return [[cell.strip().replace("`", "") for cell in row.strip().strip("|").split("|")] for row in rows.strip().split("\n")]


def rows(section, term, meaning):
    return items(
        (f"Cm {argument(row[term])}", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", meaning(row))) for row in table(section)
    )


def operation_text(row):
    return f"{row[5][0].upper()}{row[5][1:]}. Needs {row[1]}" + (f"; may have {row[2]}." if row[2] != "-" else ".")


GENERATED = {
    "commands": emactl_commands,
    "common options": emactl_common,
    "exit codes": emactl_exits,
    "daemon options": emad_options,
    "settings": conf_settings,
    "functions": header_functions,
    "header": header_declarations,
    "operations": lambda: rows("Operations", 0, operation_text),
    "request fields": lambda: rows("Request fields", 0, lambda row: f"({row[1]}) {row[2]}"),
    "reply fields": lambda: rows("Reply fields", 0, lambda row: f"({row[1]}) {row[2]}"),
    "outcomes": lambda: rows("Outcomes", 0, lambda row: row[1]),
    "status codes": lambda: rows("Status codes", 0, lambda row: f"{row[1]}: {row[2]}"),
    "limits": lambda: rows("Limits", 0, lambda row: f"{row[1]} {row[2]}"),
}


def renewed(text):
    """A page with its generated parts as they should be."""
    lines, kept = [], True
    for line in text.split("\n"):
        if line == END:
            kept = True
        if kept:
            lines.append(line)
        if line.startswith(BEGIN):
            lines += GENERATED[line.removeprefix(BEGIN)]()
            kept = False
    assert kept, "a generated part has no end"
    return "\n".join(lines)


# ---- tests ----------------------------------------------------------------------------------------------------------


def lists_are_those_of_the_programs():
    for page, path in PAGES.items():
        text = source(path)
        there, wanted = text.split("\n"), renewed(text).split("\n")
        missing = [line for line in wanted if line not in there]
        surplus = [line for line in there if line not in wanted]
        assert there == wanted, f"{page}: run 'make manuals': it lacks {missing[:5]}, and has {surplus[:5]}"


def every_option_command_and_key_is_explained():
    """Independent of how the lists are made: the words are simply there."""
    text = source(PAGES["emactl.1"])
    for name in command_names():
        assert re.search(rf'^\.Ss "{name}\b', text, re.M), name
        for option in re.findall(r"--([a-z][\w-]*)", help_parts(printed("emactl", name, "--help")).get("options", "")):
            assert re.search(rf"Fl \\-{option}\b|\\-\\-{option}\b|--{option}\b", text), f"{name} --{option}"
    text = source(PAGES["emad.conf.5"]).replace("\\-", "-")
    keys = re.findall(r"^#([\w-]+)=", printed("emad", "--default-config"), re.M)
    assert len(keys) > 30 and not [key for key in keys if f'.It Cm "{key}"' not in text]
    text = source(PAGES["emad.8"])
    for option in re.findall(r"^ .*?--([a-z][\w-]*)", printed("emad", "--help").split("Settings,")[0], re.M):
        assert f"Fl \\-{option}" in text or f"--{option}" in text or "emactl" in option, option
    text = source(PAGES["libemad.3"])
    assert len(functions()) > 30 and not [name for name in functions() if f".Fn {name}" not in text]
    if shutil.which("nm"):
        symbols = subprocess.run(
            ["nm", "-D", "--defined-only", os.path.join(PROGRAMS, "libemad.so")], capture_output=True, text=True, check=True
        ).stdout
        exported = set(re.findall(r" T (emad_\w+)", symbols))
        assert exported == set(functions()), exported ^ set(functions())


def pages_refer_to_pages_that_there_are():
    for page, path in PAGES.items():
        for name, section in re.findall(r"^\.Xr (\S+) (\d)", source(path), re.M):
            assert f"{name}.{section}" in PAGES or name in ("systemctl", "journalctl", "systemd.exec", "jq"), f"{page}: {name}"
        for other in PAGES:
            name, section = other.rsplit(".", 1)
            assert other == page or f".Xr {name} {section}" in source(path), f"{page} does not name {other}"


def pages_are_good_mdoc():
    if shutil.which("mandoc"):
        command = ["mandoc", "-T", "lint", "-W", "warning"]
    elif shutil.which("man"):
        command = ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"]
    else:
        return "neither mandoc nor man is installed"
    for path in PAGES.values():
        done = subprocess.run(
            [*command, os.path.join(ROOT, path)], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        found = done.stderr if command[0] == "man" else done.stdout + done.stderr
        assert not found.strip(), found
    return None


TESTS = (
    lists_are_those_of_the_programs, every_option_command_and_key_is_explained, pages_refer_to_pages_that_there_are,
    pages_are_good_mdoc,
)


def main():
    if sys.argv[1:] == ["--write"]:
        for path in PAGES.values():
            text = renewed(source(path))
            with open(os.path.join(ROOT, path), "w", encoding="utf-8") as file:
                file.write(text)
        return
    passed = failed = skipped = 0
    for test in TESTS:
        try:
            reason = test()
        except (AssertionError, OSError, subprocess.SubprocessError, ValueError, AttributeError) as error:
            print(f"{test.__name__}: {error!r}")
            failed += 1
            continue
        if reason:
            print(f"{test.__name__}: skipped: {reason}")
        passed, skipped = passed + (not reason), skipped + bool(reason)
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
