"""Compile time hardly grows with the lanes, whatever the model."""

import time

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


def compile_seconds(model, x, lanes):
    """Processor seconds, of all threads, that XLA takes for ten scanned steps of Adam."""
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
    lowered = jax.jit(jax.vmap(run)).lower(keys)
    start = time.process_time()
    lowered.compile()
    return time.process_time() - start


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_compile_time_at_64_lanes_is_at_most_one_and_a_half_times_that_at_4(name):
    make, x = MODELS[name]
    model = make()
    compile_seconds(model, x, 3)
    # In turn, so that what else the machine does meets both; the least of each is compared.
    few, many = [], []
    for repeat in range(3):
        few.append(compile_seconds(model, x, 4 + repeat))
        many.append(compile_seconds(model, x, 64 + repeat))
    print(f"{name}: {min(few):.2f} s at 4 lanes, {min(many):.2f} s at 64")
    assert min(many) <= 1.5 * min(few)
