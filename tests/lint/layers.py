#!/usr/bin/env python3
"""
Proves that the layers are one way: who may include whom, which outside library is whose, and that proto/ and
daemon/core/ stay pure (no clock, sockets, threads, files, or output of their own).
"""
import os
import re

import lint

# The first folder that fits; what its files may include. An edge file may include its own header besides.
MAY_INCLUDE = (
    ("proto/", ("proto/",)),
    ("daemon/core/", ("proto/", "daemon/core/")),
    ("daemon/edge/files", ("proto/", "daemon/core/", "daemon/edge/files")),  # one noun in three files
    ("daemon/edge/http", ("proto/", "daemon/core/", "daemon/edge/http")),
    ("daemon/edge/memory", ("proto/", "daemon/core/", "daemon/edge/memory")),  # another one
    ("daemon/edge/transport", ("proto/", "daemon/core/", "daemon/edge/transport")),
    ("daemon/edge/", ("proto/", "daemon/core/")),
    ("daemon/", ("proto/", "daemon/")),
    ("client/emactl/", ("proto/", "client/")),
    ("client/", ("proto/", "client/")),
    ("tests/", ("proto/", "daemon/", "client/", "tests/")),
)

# An outside thing, and for each group of folders in how many files it may be used.
ONE_FILE_EACH = (
    (r"#include <nng/", {"daemon/": 1, "client/": 1}),
    (r"#include <systemd/", {"daemon/edge/": 1}),
    (r"#include <msgpack", {"proto/": 1}),
    (r"#include <xxhash", {"proto/": 1}),
    (r"#include <microhttpd", {"daemon/edge/": 1}),
    (r"#include <ini\.h>", {"daemon/edge/": 1}),
    (r"#include <n?curses", {"client/": 1}),
    (r"\bmemfd_create\b", {"daemon/edge/": 1, "client/emactl/": 1, "client/": 1}),
)

JANSSON_FILES = ("client/emactl/facts.h", "client/emactl/output.c", "daemon/core/attributes.c", "daemon/core/config_text.c",
                 "daemon/core/generation_text.c", "daemon/core/history.c", "daemon/core/json_text.c",
                 "daemon/core/report.c", "daemon/core/report_history.c")

PURE = ("proto/", "daemon/core/")
# Of arpa/inet.h nothing but the reading of addresses: inet_pton asks nobody.
PURE_HEADERS = set(
    "arpa/inet.h assert.h ctype.h emmintrin.h errno.h float.h immintrin.h inttypes.h jansson.h limits.h math.h msgpack.h "
    "stdalign.h stdarg.h stdatomic.h stdbool.h stddef.h stdint.h stdio.h stdlib.h string.h xxhash.h".split()
)
# fprintf is not among them: without these it can only write to a stream of memory.
IMPURE = re.compile(
    r"(?<!->)(?<!\.)\b(?:(std(?:err|out|in))\b|(printf|vprintf|puts|putchar|perror|fopen|fdopen|getenv|setenv|system|"
    r"time|clock|rand|random|exit|signal|getpid|open|read|write|close)\s*\()"
)
INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]+(["<])([^">\n]+)', re.M)


def sources(files):
    return {path: text for path, text in files.items() if path.endswith((".c", ".h"))}


def line_of(text, position):
    return text.count("\n", 0, position) + 1


def check_layers(files):
    findings = []
    for path, text in sources(files).items():
        allowed = next((allowed for folder, allowed in MAY_INCLUDE if path.startswith(folder)), None)
        if allowed is None:
            findings.append(f"{path}: no layer has this folder")
            continue
        own = os.path.splitext(path)[0] + ".h"
        for match in INCLUDE.finditer(text):
            kind, name = match.groups()
            if kind == '"' and name not in files:
                findings.append(f"{path}:{line_of(text, match.start())}: includes {name}, not a path from the root")
            elif kind == '"' and not name.startswith(allowed) and name != own:
                findings.append(f"{path}:{line_of(text, match.start())}: may not include {name}")
    return findings


def check_own_header_first(files):
    findings = []
    for path, text in sources(files).items():
        own = os.path.splitext(path)[0] + ".h"
        first = INCLUDE.search(text)
        if path.endswith(".c") and own in files and (not first or first.group(2) != own):
            findings.append(f"{path}: the first include is not its own header")
    return findings


def check_libraries(files):
    findings = []
    for pattern, limits in ONE_FILE_EACH:
        users = {}
        for path, text in sources(files).items():
            if path.startswith("tests/") or not re.search(pattern, comments_blank(text)):
                continue
            folder = next((folder for folder in limits if path.startswith(folder)), None)
            if folder is None:
                findings.append(f"{path}: {pattern} belongs into {' and '.join(limits)}")
            else:
                users.setdefault(folder, []).append(path)
        for folder, paths in users.items():
            if len(paths) > limits[folder]:
                findings.append(f"{', '.join(paths)}: {pattern} belongs into {limits[folder]} file of {folder}")
    return findings


def comments_blank(text):
    return re.sub(r"/\*.*?\*/", " ", text, flags=re.S)


def check_jansson(files):
    return [
        f"{path}: <jansson.h> belongs into {', '.join(JANSSON_FILES)}"
        for path, text in sources(files).items()
        if "#include <jansson" in text and path not in JANSSON_FILES and not path.startswith("tests/")
    ]


def check_purity(files):
    findings = []
    for path, text in sources(files).items():
        if not path.startswith(PURE):
            continue
        for match in INCLUDE.finditer(text):
            if match.group(1) == "<" and match.group(2) not in PURE_HEADERS:
                findings.append(f"{path}:{line_of(text, match.start())}: <{match.group(2)}> in a pure layer")
        code = lint.code_only(text)
        for match in IMPURE.finditer(code):
            findings.append(f"{path}:{line_of(code, match.start())}: {match.group(1) or match.group(2)} in a pure layer")
    return findings


if __name__ == "__main__":
    lint.main([
        lint.Rule(
            "layers", check_layers,
            {"proto/planted.h": '#include "daemon/core/plan.h"\n'},
            {"daemon/core/planted.c": '#include "daemon/edge/log.h"\n'},
            {"daemon/edge/planted.c": '#include "daemon/edge/log.h"\n'},
            {"client/planted.c": '#include "daemon/core/plan.h"\n'},
            {"daemon/planted.c": '#include "tests/planted.h"\n', "tests/planted.h": ""},
            {"daemon/planted.c": '#include "plan.h"\n'},
            {"planted/planted.c": ""},
        ),
        lint.Rule(
            "own header first", check_own_header_first,
            {"proto/planted.c": '#include <string.h>\n#include "proto/planted.h"\n', "proto/planted.h": ""},
        ),
        lint.Rule(
            "libraries", check_libraries,
            {"daemon/core/planted.c": "#include <systemd/sd-daemon.h>\n"},
            {"daemon/edge/a.c": "#include <nng/nng.h>\n", "daemon/edge/b.c": "#include <nng/nng.h>\n"},
            {"proto/a.c": "#include <msgpack.h>\n", "proto/b.c": "#include <msgpack.h>\n"},
            {"daemon/edge/a.c": "int f = memfd_create(0, 0);\n", "daemon/edge/b.c": "int f = memfd_create(0, 0);\n"},
        ),
        lint.Rule("jansson", check_jansson, {"daemon/core/planted.c": "#include <jansson.h>\n"}),
        lint.Rule(
            "purity", check_purity,
            {"proto/planted.c": "#include <time.h>\n"},
            {"daemon/core/planted.c": "#include <pthread.h>\n"},
            {"daemon/core/planted.c": 'int f(void)\n{\n\tprintf("x");\n}\n'},
            {"daemon/core/planted.c": 'int f(void)\n{\n\tfprintf(stderr, "x");\n}\n'},
        ),
    ])
