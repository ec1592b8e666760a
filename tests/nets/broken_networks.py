"""Hundreds of broken and hostile network files, always the same, each made from a sound one by a single change."""

import copy
import io
import json
import pickle
import random
import struct
import tempfile
from functools import cache
from pathlib import Path

import torch
from networks import split_all
from torch import nn

from studio.nets.network_files import network_bytes
from studio.nets.spaces import trace
from studio.nets.surgery import widened

# What a hostile file would create, were anything in it run.
MARKER = Path(tempfile.gettempdir()) / "studio-a-broken-network-was-run"
CODE = f"open({str(MARKER)!r}, 'w')"
EVIL = f"__import__('os').system({f'touch {MARKER}'!r})"
SHAPE = (3, 8, 8)
X, Y, S, U, W = ({"node": name} for name in ("input_1", "y", "s", "u", "w"))
ALL = {"slice": [None, None, None]}
BACK = ["z", "call_function", "F.adaptive_avg_pool2d", [Y, 8], {}]


def broken_files():
    """Return (name, bytes) of every broken file, no two alike: each must be refused when it is read or tried."""
    files = []
    for base, data in sound_files():
        header, body = taken(data)
        makers = (cuts, headers, tensors, weights, words, architectures)
        files += [(f"{base}/{name}", made) for maker in makers for name, made in maker(data, header, body)]
    return files + flips() + strangers() + bombs() + settings() + graphs() + blow_ups()


def sound_files():
    """Return (name, bytes) of the sound files the others are made from: 4 classes for pictures of `SHAPE`."""
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 4)
    )
    first, second = filled(layers), filled(Joined())
    example = torch.zeros(2, *SHAPE)
    spaces = trace(second, example)
    grown, edits = widened(second, spaces, split_all(spaces, (0.5, 0.5)))
    return [("plain", network_bytes(first)), ("grown", network_bytes(grown, edits))]


class Joined(nn.Module):
    """A concatenation, a parameter of its own, functions and methods."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.side = nn.Conv2d(4, 4, 1)
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        a = torch.tanh(self.stem(x))
        return self.head(torch.cat([a, self.side(a) * self.scale], dim=1).mean((2, 3)))


def filled(network):
    """The network with weights that are the same everywhere, in evaluation mode."""
    generator = torch.Generator().manual_seed(0)
    for part in network.parameters():
        part.data = torch.randn(part.shape, generator=generator) / 4
    return network.eval()


def taken(data):
    """The header and the weights of a safetensors file."""
    length = struct.unpack("<Q", data[:8])[0]
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def given(header, body):
    """A file with this header, be it text, bytes or what JSON can say."""
    text = header if isinstance(header, str | bytes) else json.dumps(header)
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(raw)) + raw + body


def changed(header, path, value):
    """A copy of nested data with the place at the end of `path` set to a value."""
    new = copy.deepcopy(header)
    place = new
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return new


def without(header, key):
    return {name: value for name, value in header.items() if name != key}


def cuts(data, header, body):
    """Files that end too early, or too late."""
    chance, start = random.Random(1), len(data) - len(body)
    places = {1, 7, 8, 9, start - 1, start, start + 1, len(data) - 1, len(data) - 4}
    places |= set(chance.sample(range(10, start), 12)) | set(chance.sample(range(start + 2, len(data) - 8), 8))
    made = [(f"cut at {place}", data[:place]) for place in sorted(places)]
    return [*made, ("longer", data + b"\0" * 4), ("doubled", data + data), ("shifted", b"\0" + data)]


def headers(data, header, body):
    """Headers that are no proper JSON, or say something else."""
    text = json.dumps(header)
    first = next(key for key in header if key != "__metadata__")
    twice = text[:-1] + f", {json.dumps(first)}: {json.dumps(header[first])}}}"
    made = {
        "twice": twice, "list": f"[{text}]", "open": text[:-1], "comment": f"{text} // yes", "BOM": "\ufeff" + text,
        "UTF-16": text.encode("utf-16"), "Latin": text.replace(first, "é").encode("latin-1"), "two": text + text,
        "single quotes": text.replace('"', "'"), "NUL": text + "\0", "empty": "{}", "space first": " " + text,
        "no metadata": without(header, "__metadata__"), "trailing comma": text[:-1] + ",}",
    }  # fmt: skip
    for value in (None, 3, "words", ["words"], {"architecture": 3}, {"architecture": {"nodes": []}}):
        made[f"metadata {value}"] = header | {"__metadata__": value}
    return [(f"header {name}", given(each, body)) for name, each in made.items()]


def tensors(data, header, body):
    """Headers whose tensors are not those that the file has or the architecture needs."""
    names, made = [key for key in header if key != "__metadata__"], {}
    for name in names[:6]:
        part = header[name]
        begin, end = part["data_offsets"]
        made |= {f"lacks {name}": without(header, name), f"renames {name}": {**without(header, name), name + "x": part}}
        values = {
            "shape": ([*part["shape"], 2], [-1], [2**62, 2**62, 4], "3", [True], [1.5], [None], [1] * 70),
            "dtype": ("F8_E4M3", "C64", "F33", 3, None, "I32" if part["dtype"] == "F32" else "F64"),
            "data_offsets": (
                [begin, end + 4],
                [begin + 4, end + 4],
                [end, begin],
                [0, 2**63],
                [begin],
                [-4, end],
                None,
            ),
        }
        made |= {
            f"{key} {value} of {name}": changed(header, (name, key), value) for key in values for value in values[key]
        }
    turned = next(name for name in names if len(set(header[name]["shape"])) > 1)
    made["turned shape"] = changed(header, (turned, "shape"), header[turned]["shape"][::-1])
    made["extra"] = header | {"network.more": {"dtype": "F32", "shape": [0], "data_offsets": [len(body), len(body)]}}
    made["stray"] = header | {"other": {"dtype": "F32", "shape": [0], "data_offsets": [len(body), len(body)]}}
    made["unknown key"] = changed(header, (names[0], "strides"), [1])
    return [(f"tensors {name}", given(each, body)) for name, each in made.items()]


def weights(data, header, body):
    """Weights that are no numbers, at the first and the last place of a tensor."""
    made = []
    for name, part in header.items():
        if part.get("dtype") == "F32":
            begin, end = part["data_offsets"]
            for place, value in ((begin, float("nan")), (end - 4, float("-inf"))):
                made.append(
                    (f"{value} in {name}", given(header, body[:place] + struct.pack("<f", value) + body[place + 4 :]))
                )
    return made[:16]


def words(data, header, body):
    """Architectures and logs that are no JSON, or not of that kind."""
    texts = (
        "null", "[1", "[]", "", "3", "NaN", "{}", '{"nodes": []}', '{"modules": {}, "nodes": 3}', "[" * 10_000,
        '{"modules": ' * 5_000, "9" * 5_000, '{"modules": {}, "modules": {}, "tensors": {}, "nodes": []}', '"\\ud800"',
        '{"modules": [], "tensors": {}, "nodes": []}', '{"modules": {}, "tensors": {}, "nodes": []}',
    )  # fmt: skip
    made = [
        (f"architecture {text[:40]}", given(changed(header, ("__metadata__", "architecture"), text), body))
        for text in texts
    ]
    edit = ["a", 0, [0], [1.0], [1.0], 1]
    logs = ("3", "[[]]", "{", "[" * 2_000, '"a"', "[3]", json.dumps([[*edit, 1]]), "[" + "0," * 3_000_000 + "0]")
    bad = {
        0: (3, None),
        1: (-1, 99, "0"),
        2: ([-2], ["a"], [0, 1], [1.5], 7),
        3: ([float("nan")], [float("inf")], ["a"]),
        5: (0, "1"),
    }
    logs += tuple(json.dumps([changed(edit, (place,), value)]) for place, values in bad.items() for value in values)
    return made + [(f"log {log[:40]}", given(changed(header, ("__metadata__", "log"), log), body)) for log in logs]


def described_by(header, description):
    return changed(header, ("__metadata__", "architecture"), json.dumps(description))


def architectures(data, header, body):
    """Architectures with a node or a module left out, or a node moved."""
    whole, made = json.loads(header["__metadata__"]["architecture"]), {}
    for place, node in enumerate(whole["nodes"]):
        rest = [each for each in whole["nodes"] if each is not node]
        if node[2] not in ("1", "2", "3", "x"):
            made[f"without the node {node[0]}"] = whole | {"nodes": rest}
        made[f"with {node[0]} last"] = (
            whole | {"nodes": [*rest, node]} if node[1] != "output" else whole | {"nodes": [node, *rest]}
        )
        made[f"with {node[0]} twice"] = whole | {"nodes": [*whole["nodes"][:place], node, *whole["nodes"][place:]]}
        made[f"with {node[0]} cut"] = whole | {"nodes": [each[:4] if each is node else each for each in whole["nodes"]]}
    for name in whole["modules"]:
        made[f"without the module {name}"] = whole | {"modules": without(whole["modules"], name)}
        made[f"with {name} as a Bilinear"] = changed(whole, ("modules", name, 0), "Bilinear")
    made["without tensors"] = without(whole, "tensors")
    return [(f"architecture {name}", given(described_by(header, each), body)) for name, each in made.items()]


def flips():
    """Files with one bit the other way, in the length of the header or in its list of tensors."""
    chance, made = random.Random(2), []
    for base, data in sound_files():
        start = 8 + data[8:].index(b'"network.')
        stop = 8 + struct.unpack("<Q", data[:8])[0]
        for place in [*range(64), *chance.sample(range(8 * start, 8 * stop), 40)]:
            new = bytearray(data)
            new[place // 8] ^= 1 << place % 8
            made.append((f"{base}/bit {place}", bytes(new)))
    return made


class Evil:
    """What an unpickled file would run."""

    def __reduce__(self):
        return exec, (CODE,)


def strangers():
    """Files of other kinds: pickles above all."""
    made = [(f"pickle {protocol}", pickle.dumps({"a": Evil()}, protocol)) for protocol in range(6)]
    for new in (True, False):
        for name, value in (("evil", {"a": Evil()}), ("weights", {"a": torch.ones(3)}), ("module", nn.Linear(2, 2))):
            buffer = io.BytesIO()
            torch.save(value, buffer, _use_new_zipfile_serialization=new)
            made.append((f"torch.save {name} {new}", buffer.getvalue()))
    chance = random.Random(3)
    made += [(f"noise {size}", chance.randbytes(size)) for size in (0, 3, 8, 9, 64, 1000, 100_000)]
    starts = (b"\x89PNG\r\n\x1a\n", b"\x89HDF\r\n\x1a\n", b"GGUF\3\0\0\0", b"\x1f\x8b\x08", b"MZ", b"<html>", b"{}")
    return made + [(f"begins {start!r}", start + b"\0" * 64) for start in starts]


def bombs():
    """Headers that would eat memory or time."""
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    most = json.dumps({f"network.{number}": entry for number in range(100_000)})
    many = json.dumps({f"network.{number}": entry for number in range(20_001)})
    half, huge = entry | {"shape": [2], "data_offsets": [0, 8]}, entry | {"shape": [2**50], "data_offsets": [0, 2**52]}
    made = {
        "100,000 entries": most, "20,001 entries": many, "overlapping": {"network.a": half, "network.b": half},
        "lists": '{"a": ' + "[" * 100_000, "objects": '{"a":' * 100_000, "petabytes": {"network.a": huge},
        "closed lists": '{"a": ' + "[" * 5_000 + "]" * 5_000 + "}", "digits": '{"a": ' + "9" * 50_000 + "}",
        "quotes": '{"' + '\\"' * 500_000, "spaces": "{" + " " * 17_000_000 + "}",
        "empty lists": '{"a": [' + "[]," * 1_000_000 + "[]]}",
    }  # fmt: skip
    files = [(f"bomb {name}", given(header, b"\0" * 8)) for name, header in made.items()]
    lengths = (0, 1, 2**31, 2**32, 2**40, 2**63 - 1, 2**63, 2**64 - 1)
    return files + [(f"length {length}", struct.pack("<Q", length) + b'{"a":1}' + b" " * 9) for length in lengths]


@cache
def plain():
    """The plain file: its header, its weights and its architecture."""
    header, body = taken(sound_files()[0][1])
    return header, body, json.loads(header["__metadata__"]["architecture"])


def from_plain(path, value):
    """The plain file with one place of its architecture set to a value."""
    header, body, whole = plain()
    return given(described_by(header, changed(whole, path, value)), body)


def settings():
    """Modules with settings that cannot be."""
    numbers = (0, -1, 10**9, 10**30, "3", [3] * 50, 1.5, True, [], {}, [[3]])
    keys = ("in_channels", "out_channels", "kernel_size", "stride", "dilation", "groups")
    tries = [("0", key, value) for key in keys for value in numbers]
    tries += [
        ("0", "padding", -1), ("0", "padding", 10**9), ("0", "padding", "wide"), ("0", "padding", None),
        ("0", "padding", [1] * 7), ("0", "padding", 0.5), ("0", "padding", [2**40, 0]), ("0", "groups", 3),
        ("0", "padding_mode", "mirror"), ("0", "device", "cpu"), ("0", "dtype", "float64"), ("0", "evil", 1),
        ("1", "eps", -1), ("1", "eps", float("nan")), ("1", "momentum", 1e300), ("1", "num_features", 5),
        ("1", "affine", 1), ("3", "kernel_size", 0), ("3", "kernel_size", 10**6), ("3", "stride", -1),
        ("3", "padding", 2), ("3", "dilation", 0), ("3", "return_indices", True), ("4", "start_dim", 99),
        ("5", "in_features", 10**12), ("5", "out_features", -4), ("5", "bias", "yes"),
    ]  # fmt: skip
    return [
        (f"setting {name}.{key} {value!r}", from_plain(("modules", name, 1, key), value)) for name, key, value in tries
    ]


def graphs():
    """Graphs that would reach what is not on the lists, or put words of their own into the network's code."""
    nodes = [
        call("y", "os.system", "ls"), call("y", "builtins.exec", CODE), call("y", "__class__", X),
        call("y", "apply_", X), ["y", "call_method", "a.__init__", [X], {}], ["y", "get_attr", "0.__class__", [], {}],
        ["y", "get_attr", "__init__.__globals__", [], {}], ["y", "call_module", "0.__init__", [X], {}],
        ["y", "call_module", "", [X], {}], ["y", "call_module", ["0"], [X], {}], ["y", "eval", EVIL, [X], {}],
        ["y", None, None, [X], {}], call("class", "relu", X), call("self", "relu", X), call("input_1", "relu", X),
        call(f"y = {EVIL}", "relu", X), call("ｙ", "relu", X), call(3, "relu", X),
        ["y", "call_function", "F.relu", [], {f"input={EVIL} or input_1, inplace": False}],
        ["y", "call_function", "F.relu", [X], {f"inplace={EVIL}, a": False}],
        ["y", "call_function", "F.relu", [X], {"a b": 1}], call("y", "F.relu", X, **{"class": 1}),
        call("y", "torch.add", X, X, out=X), call("y", "F.relu", X, evil=1), call("y", "F.relu"),
        call("y", "relu", "x"), call("y", "F.relu", {"node": "output"}), call("y", "F.relu", Y),
        call("y", "F.relu", {"node": "later"}), call("y", "F.relu", {"evil": 1}),
        call("y", "operator.getitem", X, {"slice": [EVIL, None, None]}),
        call("y", "operator.getitem", X, {"slice": [0, {"slice": [0, 1, 1]}, 1]}),
        call("y", "operator.getitem", X, {"slice": [0, 1]}), ["y", "placeholder", "y", [], {}],
        ["y", "placeholder", f"y={EVIL}", [], {}], ["y", "placeholder", "*y", [], {}],
        ["y", "output", "output", [X], {}], ["y", "root", "y", [], {}], ["y"], [], "node", 7, None, {"y": 1},
    ]  # fmt: skip
    made = [(f"node {number} {str(node)[:60]}", with_nodes(node)) for number, node in enumerate(nodes)]
    names = (
        "forward", "__class__", "_modules", "a.forward", "a..b", ".a", "a.", "0.weight", "0.more", "a b", "é",
        "a" * 500, "graph", "training", "state_dict", "0.__dict__", f"a\"), {EVIL}, getattr(self, \"b",
    )  # fmt: skip
    for name in names:
        made.append((f"module {name[:30]}", from_plain(("modules", name), ["ReLU", {}])))
        made.append((f"tensor {name[:30]}", from_plain(("tensors", name), [3])))
    for shape in ([10**6] * 4, [-1], [1] * 9, "3", [2.5], 3, [10**30], None, [True]):
        made.append((f"tensor shape {shape!r}", from_plain(("tensors", "a"), shape)))
    deep = json.loads("[" * 20 + "]" * 20)
    return [
        *made,
        ("6,000 nodes", with_nodes(*(call(f"y{number}", "relu", X) for number in range(6_000)))),
        ("deep", with_nodes(call("y", "view", X, deep))),
        ("a word of Python", from_plain(("nodes", 0, 2), "class")),
        ("default", from_plain(("nodes", 0, 3), [1])),
        ("a numbered output", from_plain(("nodes", -1, 2), 0)),
        ("split by a word", with_nodes(call("y", "split", X, "x"))),
    ]


def with_nodes(*nodes):
    """The plain file with some nodes behind its input; where the last is named z, the rest of the graph reads that."""
    first, *rest = plain()[2]["nodes"]
    read = "z" if isinstance(nodes[-1], list) and nodes[-1][:1] == ["z"] else X["node"]
    return from_plain(("nodes",), [first, *nodes, *changed(rest, (0, 3), [{"node": read}])])


def call(name, function, *args, **named):
    return [name, "call_function" if "." in function else "call_method", function, list(args), named]


def up(size):
    return call("u", "F.interpolate", X, size)


def chained(function, count):
    """Nodes each of which combines the one before with itself."""
    return [call(f"y{n}", function, {"node": f"y{n - 1}"}, {"node": f"y{n - 1}"}) for n in range(1, count)]


def blow_ups():
    """Graphs that would use up memory or time, and then go on as if nothing had been."""
    size, flat = call("s", "size", X, 0), [up(512), call("w", "flatten", U, 1)]
    makers = {
        "interpolate": [call("y", "F.interpolate", X, 100_000), BACK],
        "times": [call("y", "F.interpolate", X, None, 5000.0), BACK],
        "infinite": [call("y", "F.interpolate", X, None, 1e300), BACK],
        "pow": [size, call("y", "operator.pow", 9, S), call("z", "operator.mul", X, Y)],
        "tower": [size, call("y", "operator.pow", S, 10**12), call("z", "operator.mul", X, Y)],
        "tuple": [size, call("y", "operator.mul", [0], 10**10), BACK],
        "repeat": [size, call("y", "operator.mul", [0, 0], S), BACK],
        "word": [size, call("y", "operator.mul", "ab", S), BACK],
        "reshape": [call("y", "reshape", X, 10**6, 10**6), BACK],
        "batch": [call("u", "unsqueeze", X, 0), call("w", "unsqueeze", X, 1), call("y", "operator.mul", U, W),
                  call("z", "mean", Y, 0)],
        "sizes": [call("y0", "size", X), *chained("operator.add", 50), call("z", "relu", X)],
        "numbers": [call("y0", "size", X, 1), *chained("operator.mul", 40), call("z", "relu", X)],
        "pieces": [*flat, call("y", "split", W, 1, 1), call("z", "relu", X)],
        "chunks": [*flat, call("y", "chunk", W, 10**6, 1), call("z", "relu", X)],
        "cat": [call("u", "torch.cat", [X] * 1000, 3), call("y", "torch.cat", [U] * 1000, 2), BACK],
        "list": [call("y", "torch.cat", [X] * 2000, 2), BACK],
        "kept": [up(1500), *(call(f"y{number}", "exp", U) for number in range(60)), call("z", "relu", X)],
        "pool": [up(3000), call("y", "F.avg_pool2d", U, 1000, 1), BACK],
        "largest": [up(3000), call("y", "F.max_pool2d", U, [900, 900], 1), BACK],
        "matmul": [up(3200), call("y", "torch.matmul", U, U), BACK],
        "index": [call("u", "operator.getitem", X, [ALL, [0] * 1000]), call("y", "torch.cat", [U] * 1000, 1),
                  call("z", "relu", X)],
        "no progress": [call("y", "F.max_pool2d", X, 2, 0), BACK],
        "backwards": [call("y", "F.max_pool2d", X, -2), BACK], "too deep": [call("y", "view", X, *[1] * 80), BACK],
    }  # fmt: skip
    return [(f"blow-up {name}", with_nodes(*nodes)) for name, nodes in makers.items()]
