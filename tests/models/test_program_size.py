"""The size of a compiled program does not grow with the lanes, whatever the model."""

import jax
import jax.numpy as jnp
import pytest

from jdl import losses, models, optim

IMAGES = jax.ShapeDtypeStruct((8, 8, 8, 1), "float32")
TOKENS = jax.ShapeDtypeStruct((4, 6), "int32")
MODELS = {
    "cnn": (lambda: models.cnn(3, features=(4, 8), dropout=0.1), IMAGES),
    "lstm_classifier": (lambda: models.lstm_classifier(7, 3, features=16), TOKENS),
    "mlp": (lambda: models.mlp((32, 3), batch_norm=True, dropout=0.1), IMAGES),
    "resnet": (lambda: models.resnet(3, depth=8, features=4), IMAGES),
    "sigmoid_neuron": (models.sigmoid_neuron, jax.ShapeDtypeStruct((8, 5), "float32")),
    "transformer": (lambda: models.transformer(7, length=6, depth=2, features=16), TOKENS),
    "vgg": (lambda: models.vgg(3, stages=((4, 4), (8,)), hidden=(8,), dropout=0.1), IMAGES),
    "vit": (lambda: models.vit(3, depth=2, features=16), IMAGES),
}


def test_every_model_is_measured():
    assert MODELS.keys() == set(models.__all__)


def instructions(model, x, lanes):
    """How many XLA compiles ten scanned steps of Adam to."""
    optimizer = optim.adam(1e-2)

    def step(carry, key):
        params, state, slots = carry

        def loss(params):
            y, after = model.apply(params, state, jnp.ones(x.shape, x.dtype), key=key, train=True)
            return losses.squared_error(y, jnp.zeros_like(y)).mean(), after

        gradient, after = jax.grad(loss, has_aux=True)(params)
        updates, slots = optimizer.update(gradient, slots, params)
        return (optim.apply_updates(params, updates), after, slots), None

    def run(key):
        params, state = model.init(jax.random.fold_in(key, 0), x)
        keys = jax.random.split(jax.random.fold_in(key, 1), 10)
        return jax.lax.scan(step, (params, state, optimizer.init(params)), keys)[0]

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), lanes))
    return jax.jit(jax.vmap(run)).lower(keys).compile().as_text().count(" = ")


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_64_lanes_compile_to_hardly_more_instructions_than_4(name):
    make, x = MODELS[name]
    few, many = (instructions(make(), x, lanes) for lanes in (4, 64))
    print(f"{name}: {few} at 4 lanes, {many} at 64")
    assert many <= 1.1 * few
