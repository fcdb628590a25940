"""Makes keras_models.zip: models as Keras writes them, what they were asked and what they answered.

Run by hand, in an environment with tensorflow-cpu 2.21, keras 3.15, tf2onnx 1.17 and onnx:
``python make_keras_models.py``.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path

import keras
import numpy as np
from keras import layers

HERE = Path(__file__).parent
MODELS = {
    "gru": [layers.GRU(8), layers.Dense(3)],
    "gru_reset_first": [layers.GRU(8, reset_after=False), layers.Dense(3)],
    "gru_stacked": [
        layers.GRU(8, return_sequences=True),
        layers.GRU(6, return_sequences=True),
        layers.Dense(3, "softmax"),
    ],
    "gru_both_ways": [layers.Bidirectional(layers.GRU(8)), layers.Dense(3)],
    "gru_both_ways_sequence": [layers.Bidirectional(layers.GRU(8, return_sequences=True)), layers.Dense(3)],
    "lstm": [layers.LSTM(8), layers.Dense(3, "relu")],
    "lstm_both_ways": [layers.Bidirectional(layers.LSTM(8, return_sequences=True)), layers.Dense(3)],
    "lstm_backwards": [layers.LSTM(8, go_backwards=True), layers.Dense(3)],
    "rnn_sequence": [layers.SimpleRNN(8, return_sequences=True), layers.Dense(3)],
    "rnn_relu": [layers.SimpleRNN(8, activation="relu"), layers.Dense(3)],
    "conv_gru": [layers.Conv1D(6, 3, padding="same", activation="relu"), layers.GRU(8), layers.Dense(3)],
    "conv_strided_lstm": [layers.Conv1D(6, 3, strides=2), layers.LSTM(8, return_sequences=True), layers.Dense(3)],
    "dropout_norm_gru": [layers.Dropout(0.2), layers.BatchNormalization(), layers.GRU(8), layers.Dense(3)],
    "embedding_lstm": [layers.Embedding(50, 6), layers.Bidirectional(layers.LSTM(8)), layers.Dense(1, "sigmoid")],
    "embedding_gru": [layers.Embedding(50, 6), layers.GRU(8, return_sequences=True), layers.Dense(50)],
    "gru_pooled": [layers.GRU(8, return_sequences=True), layers.GlobalAveragePooling1D(), layers.Dense(3)],
    "gru_summed_ways": [layers.Bidirectional(layers.GRU(8, return_sequences=True), merge_mode="sum"), layers.Dense(3)],
    "gru_unrolled": [layers.GRU(8, unroll=True), layers.Dense(3)],
}


def main() -> None:
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    asked = {"x": rng.standard_normal((2, 7, 5)).astype(np.float32), "indices": rng.integers(0, 50, (2, 7), np.int32)}
    with (
        zipfile.ZipFile(HERE / "keras_models.zip", "w", zipfile.ZIP_DEFLATED) as out,
        tempfile.TemporaryDirectory() as tmp,
    ):
        answers = dict(asked)
        for name, stack in MODELS.items():
            x = asked["indices" if name.startswith("embedding") else "x"]
            steps = 7 if "unrolled" in name else None
            model = keras.Sequential([keras.Input((steps, *x.shape[2:]), dtype=x.dtype, name="x"), *stack])
            for weights in model.weights:  # biases and statistics start as zeros and ones: nothing would be compared
                if weights.dtype == "float32" and "seed" not in weights.path:
                    noise = np.random.default_rng(len(answers)).uniform(0.1, 0.3, weights.shape)
                    weights.assign(weights + noise.astype(np.float32))
            answers[name] = model(x, training=False).numpy()
            path = Path(tmp) / f"{name}.onnx"
            model.export(path, format="onnx", verbose=False)
            out.write(path, f"{name}.onnx")
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **answers)
        out.writestr("answers.npz", buffer.getvalue())


if __name__ == "__main__":
    main()
