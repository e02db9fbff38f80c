"""A BERT-family sentence encoder as an ONNX graph, composed from its safetensors.

The graph equals what onnxruntime's optimiser makes of an exported BERT: fused attention, skip and
layer normalisation, bias and GELU (operators of the domain com.microsoft). It includes mean pooling
and normalisation.

Inputs `input_ids` and `attention_mask`, int64 [batch, tokens]; output `sentence_embedding`,
float32 [batch, hidden].
"""

import json
import logging

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

FUSED = "com.microsoft"


def build(model_dir, into):
    """Writes float32.onnx and int8.onnx (dynamically quantised) into the directory `into`."""
    into.mkdir(parents=True, exist_ok=True)
    float32, int8 = into / "float32.onnx", into / "int8.onnx"
    if not float32.exists():
        settings = json.loads((model_dir / "config.json").read_text())
        model = Encoder(tensors(model_dir / "model.safetensors"), settings).model()
        save(lambda path: onnx.save(model, path), float32)
    if not int8.exists():
        # Suppresses a recommendation to run ONNX's shape inference first.
        logging.getLogger().setLevel(logging.ERROR)
        # Signed weights are the fastest on AVX-512 VNNI. One scale per channel costs 2 to 8 % more time
        # than one per matrix, and raises the mean cosine to float32 from .961 to .994. The default tensor
        # type is needed because ONNX's shape inference does not know the fused operators.
        save(
            lambda path: quantize_dynamic(
                float32,
                path,
                per_channel=True,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=["MatMul", "Attention"],
                extra_options={"DefaultTensorType": TensorProto.FLOAT},
            ),
            int8,
        )
    return float32, int8


def save(write, path):
    """Writes under a temporary name and renames, so that an existing file is always complete."""
    part = path.with_suffix(".part")
    write(part)
    part.rename(path)


def tensors(path):
    """The float32 tensors of a safetensors file by name."""
    raw = np.fromfile(path, dtype=np.uint8)
    start = 8 + int(raw[:8].view("<u8")[0])
    header = json.loads(bytes(raw[8:start]))
    found = {}
    for name, tensor in header.items():
        if tensor.get("dtype") == "F32":
            first, last = tensor["data_offsets"]
            found[name] = raw[start + first : start + last].view("<f4").reshape(tensor["shape"])
    return found


class Encoder:
    def __init__(self, weights, settings):
        self.weights = weights
        self.settings = settings
        self.nodes = []
        self.constants = []

    def model(self):
        hidden = self.embeddings()
        for layer in range(self.settings["num_hidden_layers"]):
            hidden = self.layer(hidden, f"encoder.layer.{layer}.")
        self.pool(hidden)
        int64, size = TensorProto.INT64, self.settings["hidden_size"]
        inputs = ["input_ids", "attention_mask"]
        graph = helper.make_graph(
            self.nodes,
            "encoder",
            [helper.make_tensor_value_info(name, int64, ["batch", "tokens"]) for name in inputs],
            [helper.make_tensor_value_info("sentence_embedding", TensorProto.FLOAT, ["batch", size])],
            self.constants,
        )
        operators = [helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)]
        return helper.make_model(graph, opset_imports=operators, ir_version=9)

    def node(self, operator, inputs, outputs, **attributes):
        outputs = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(operator, inputs, outputs, name=outputs[0], **attributes))
        return outputs[0]

    def constant(self, name, values):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def weight(self, name):
        return self.constant(name, self.weights[name])

    def embeddings(self):
        self.node("Cast", ["input_ids"], "ids", to=TensorProto.INT32)
        self.node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
        # All tokens belong to the first segment, so its embedding is added to the positions.
        positions = (
            self.weights["embeddings.position_embeddings.weight"]
            + self.weights["embeddings.token_type_embeddings.weight"][0]
        )
        inputs = [
            "ids",
            "",
            self.weight("embeddings.word_embeddings.weight"),
            self.constant("positions", positions),
            "",
            self.weight("embeddings.LayerNorm.weight"),
            self.weight("embeddings.LayerNorm.bias"),
            "mask",
        ]
        return self.node(
            "EmbedLayerNormalization",
            inputs,
            ["embedded", "mask_index"],
            domain=FUSED,
            epsilon=self.settings["layer_norm_eps"],
        )

    def layer(self, hidden, prefix):
        parts = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self.weights[part + ".weight"].T for part in parts], axis=1)
        bias = np.concatenate([self.weights[part + ".bias"] for part in parts])
        inputs = [
            hidden,
            self.constant(prefix + "qkv.weight", weight),
            self.constant(prefix + "qkv.bias", bias),
            "mask",
        ]
        heads = self.settings["num_attention_heads"]
        attended = self.node("Attention", inputs, prefix + "attended", domain=FUSED, num_heads=heads)
        hidden = self.dense_and_skip(attended, hidden, prefix + "attention.output.")
        wide = self.matrix(hidden, prefix + "intermediate.dense.")
        bias = self.weight(prefix + "intermediate.dense.bias")
        wide = self.node("BiasGelu", [wide, bias], prefix + "gelu", domain=FUSED)
        return self.dense_and_skip(wide, hidden, prefix + "output.")

    def matrix(self, hidden, prefix):
        weight = self.constant(prefix + "weight", self.weights[prefix + "weight"].T)
        return self.node("MatMul", [hidden, weight], prefix + "product")

    def dense_and_skip(self, hidden, skipped, prefix):
        product = self.matrix(hidden, prefix + "dense.")
        inputs = [
            product,
            skipped,
            self.weight(prefix + "LayerNorm.weight"),
            self.weight(prefix + "LayerNorm.bias"),
            self.weight(prefix + "dense.bias"),
        ]
        return self.node(
            "SkipLayerNormalization",
            inputs,
            prefix + "normalised",
            domain=FUSED,
            epsilon=self.settings["layer_norm_eps"],
        )

    def pool(self, hidden):
        # The divisor of the mean cancels in the normalisation.
        self.node("Cast", ["attention_mask"], "weights", to=TensorProto.FLOAT)
        self.node("Unsqueeze", ["weights", self.constant("last", np.array([2]))], "column")
        self.node("Mul", [hidden, "column"], "masked")
        self.node("ReduceSum", ["masked", self.constant("tokens", np.array([1]))], "sum", keepdims=0)
        self.node("LpNormalization", ["sum"], "sentence_embedding", axis=1, p=2)
