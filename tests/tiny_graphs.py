"""ONNX graphs of tiny networks whose answers are known."""

import re

import numpy as np

TINY_SIZE = 64
TINY_TOKENS = 2
TINY_WIDTH = 6


def zone_maps(size=TINY_SIZE, rows=(0.375, 0.55)):
    """For each of the six zones a map (size, size): 3 inside, -1 outside."""
    centre = (np.arange(size) + 0.5) / size
    level = np.searchsorted(rows, centre)
    maps = np.full((6, size, size), -1.0, np.float32)
    for zone in range(6):
        inside = (level == zone % 3)[:, None] & ((centre >= 0.5) == (zone >= 3))[None, :]
        maps[zone][inside] = 3.0
    return maps


def onnx_model(graph, constants):
    """ONNX bytes of a graph in ONNX's text form, with the constants that it names."""
    from onnx import numpy_helper, parser

    model = parser.parse_model(f'<ir_version: 9, opset_import: ["" : 18]>\ntiny {graph}')
    used = {name: np.asarray(value) for name, value in constants.items() if re.search(rf"\b{name}\b", graph)}
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in used.items())
    return model.SerializeToString()


def tiny_graph(size=TINY_SIZE, reads_text=True, thresholds=None):
    """ONNX bytes: logits are the blurred brightness plus, for each zone of the text, its map.

    With six ``thresholds`` it writes its own report: zone logits are twice the mean brightness of each zone, and the
    attention is the softmax of brightness over 8 x 8 patches.
    """
    flat = zone_maps(size).reshape(6, size * size)
    inside = (flat > 0).astype(np.float32)
    constants = {"channel_axis": [1], "token_axis": [1], "last_axis": [2], "tokens": np.float32(TINY_TOKENS)}
    constants |= {"two": np.float32(2), "zero": np.float32(0), "thresholds": np.array(thresholds or (0,), np.float32)}
    constants |= {"maps": flat, "mean_inside": (inside / inside.sum(1, keepdims=True)).T.copy()}
    constants |= {"flat_shape": [-1, size * size], "map_shape": [-1, 1, size, size]}
    constants |= {"patch_shape": [-1, (size // 8) ** 2], "attention_shape": [-1, 1, size // 8, size // 8]}
    inputs, outputs = f"float[B,3,{size},{size}] image", f"float[B,1,{size},{size}] logits"
    nodes = "grey = ReduceMean <keepdims=1> (image, channel_axis)"
    blur = "AveragePool <kernel_shape=[5,5], pads=[2,2,2,2]> (grey)"
    if not reads_text:
        return onnx_model(f"({inputs}) => ({outputs}) {{ {nodes} logits = {blur} }}", constants)
    inputs += f", float[B,{TINY_TOKENS},{TINY_WIDTH}] text_features, float[B,{TINY_TOKENS}] text_mask"
    nodes += f"""
        blurred = {blur}
        mask3 = Unsqueeze (text_mask, last_axis)
        kept = Mul (text_features, mask3)
        summed = ReduceSum <keepdims=0> (kept, token_axis)
        given_zones = Div (summed, tokens)"""
    if thresholds is None:
        nodes += " zones = Identity (given_zones)"
    else:
        nodes += """
            grey_flat = Reshape (grey, flat_shape)
            means = MatMul (grey_flat, mean_inside)
            zone_logits = Mul (means, two)
            zone_probability = Sigmoid (zone_logits)
            reached = GreaterOrEqual (zone_probability, thresholds)
            own_zones = Cast <to=1> (reached)
            words = ReduceSum <keepdims=1> (text_mask, token_axis)
            write = Equal (words, zero)
            zones = Where (write, own_zones, given_zones)
            patches = AveragePool <kernel_shape=[8,8], strides=[8,8]> (grey)
            patch_flat = Reshape (patches, patch_shape)
            shares = Softmax <axis=1> (patch_flat)
            attention = Reshape (shares, attention_shape)"""
        outputs += f", float[B,6] zone_logits, float[B,1,{size // 8},{size // 8}] attention"
    nodes += """
        steer_flat = MatMul (zones, maps)
        steer = Reshape (steer_flat, map_shape)
        logits = Add (blurred, steer)"""
    return onnx_model(f"({inputs}) => ({outputs}) {{ {nodes} }}", constants)


FILM_GRAPH = """({inputs}, float[B,6] denied) => (
        float[B,1,{size},{size}] logits, float[B,6] zone_logits, float[B,1,{cells},{cells}] attention,
        float[B,1] presence, float[B,2,{cells},{cells}] lungs) {{
    grey = ReduceMean <keepdims=1> (image, channel_axis)
    attention = AveragePool <kernel_shape=[4,4], strides=[4,4]> (grey)
    patches = Reshape (attention, patch_shape)

    in_zones = Mul (patches, zone_patches)
    zones_raw = ReduceMax <keepdims=0> (in_zones, last_axis)
    zones_up = Clip (zones_raw, least, most)
    zones_down = Sub (one, zones_up)
    zones_log = Log (zones_up)
    zones_log_not = Log (zones_down)
    zone_logits = Sub (zones_log, zones_log_not)

    any_raw = ReduceMax <keepdims=0> (patches, last_axis)
    any_up = Clip (any_raw, least, most)
    any_down = Sub (one, any_up)
    any_log = Log (any_up)
    any_log_not = Log (any_down)
    presence = Sub (any_log, any_log_not)

    over_lung = Sub (attention, lung)
    steep = Mul (over_lung, forty)
    lungs = Add (steep, sides)

    mask3 = Unsqueeze (text_mask, last_axis)
    kept = Mul (text_features, mask3)
    summed = ReduceSum <keepdims=0> (kept, token_axis)
    given_zones = Div (summed, tokens)
    reached = GreaterOrEqual (zones_up, thresholds)
    own_zones = Cast <to=1> (reached)
    words = ReduceSum <keepdims=1> (text_mask, token_axis)
    write = Equal (words, zero)
    zones = Where (write, own_zones, given_zones)

    told_flat = MatMul (zones, maps)
    denied_flat = MatMul (denied, dark)
    steer_flat = Add (told_flat, denied_flat)
    steer = Reshape (steer_flat, map_shape)
    over_lesion = Sub (grey, lesion)
    bright = Mul (over_lesion, four)
    logits = Add (bright, steer)
}}"""


def film_graph(size=TINY_SIZE, thresholds=(0.5,) * 6, transpose=False, change=("", "")):
    """ONNX bytes of a network that judges whole films of brightness 0 to 1 (``normalise="unit"``).

    - ``presence`` and each zone's probability are the brightness of the brightest patch, 4 x 4, of film and zone.
    - A lung is what is brighter than 0.25, in the half of its side; lesion is what is brighter than 0.5.
    - Each zone of the text, or of its own report, has its map of `zone_maps`; a denied zone is 4 lower in the logits.

    ``transpose`` is for films whose rows and columns are swapped; of ``change`` the first text of the graph becomes the
    second.
    """
    cells = size // 4
    maps, small = zone_maps(size), zone_maps(cells)
    sides = np.zeros((1, 2, cells, cells), np.float32)
    sides[:, 0, :, cells // 2 :] = sides[:, 1, :, : cells // 2] = -100
    if transpose:
        maps, small, sides = (values.swapaxes(-1, -2).copy() for values in (maps, small, sides))
    maps, small = maps.reshape(6, -1), small.reshape(6, -1)
    constants = {"channel_axis": [1], "token_axis": [1], "last_axis": [2], "tokens": np.float32(TINY_TOKENS)}
    constants |= {"one": np.float32(1), "zero": np.float32(0), "four": np.float32(4), "forty": np.float32(40)}
    constants |= {"least": np.float32(1e-4), "most": np.float32(1 - 1e-4)}
    constants |= {"lung": np.float32(0.25), "lesion": np.float32(0.5)}
    constants |= {"maps": maps, "dark": np.where(maps > 0, np.float32(-4), np.float32(0)), "sides": sides}
    constants |= {"zone_patches": (small > 0).astype(np.float32)[None], "thresholds": np.array(thresholds, np.float32)}
    constants |= {"patch_shape": [-1, 1, cells**2], "map_shape": [-1, 1, size, size]}
    inputs = f"float[B,3,{size},{size}] image"
    inputs += f", float[B,{TINY_TOKENS},{TINY_WIDTH}] text_features, float[B,{TINY_TOKENS}] text_mask"
    graph = FILM_GRAPH.format(inputs=inputs, size=size, cells=cells)
    assert change[0] in graph
    return onnx_model(graph.replace(*change), constants)


GROUNDING_CELLS = 8
GROUNDING_WORDS = ("left", "right", "bright", "opacity", "lung", "lower", "upper", "and", ",", ".")


def grounding_graphs(size=TINY_SIZE, pieces=None):
    """ONNX bytes of a text and an image graph, D = 4.

    A place is (1 on the viewer's left, 1 on the right, its brightness, 1); a word is the unit vector of "left",
    "right", "bright", or else the last one.
    """
    cells, patch = GROUNDING_CELLS, size // GROUNDING_CELLS
    side = np.zeros((1, 2, cells, cells), np.float32)
    side[:, 0, :, : cells // 2] = 1
    side[:, 1, :, cells // 2 :] = 1
    table = np.zeros((len(pieces), 4), np.float32)
    for row, piece in enumerate(pieces):
        table[row, {"left": 0, "right": 1, "bright": 2}.get(piece, 3)] = 1
    text = onnx_model(
        """(int64[K,L] ids, int64[K,L] attention, float[K,L] weights) => (float[K,4] phrases) {
            words = Gather (table, ids)
            real = Cast <to=1> (attention)
            shares = Mul (weights, real)
            shares3 = Unsqueeze (shares, last)
            kept = Mul (words, shares3)
            summed = ReduceSum <keepdims=0> (kept, middle)
            phrases = LpNormalization <axis=1> (summed)
        }""",
        {"table": table, "last": [2], "middle": [1]},
    )
    image = onnx_model(
        f"""(float[B,3,{size},{size}] image) => (float[B,4,{cells},{cells}] local, float[B,4] pooled) {{
            grey = ReduceMean <keepdims=1> (image, channels)
            patches = AveragePool <kernel_shape=[{patch},{patch}], strides=[{patch},{patch}]> (grey)
            nothing = Mul (patches, none)
            placed = Add (nothing, sides)
            ones = Add (nothing, one)
            local = Concat <axis=1> (placed, patches, ones)
            pooled = ReduceMean <keepdims=0> (local, places)
        }}""",
        {"channels": [1], "places": [2, 3], "none": np.float32(0), "one": np.float32(1), "sides": side},
    )
    return text, image
