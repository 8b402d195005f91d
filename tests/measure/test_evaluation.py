import pytest
import torch
from torch import nn

from smallnets.batches import Batches
from smallnets.measure import evaluating, one_tensor, predict, predict_with_labels
from smallnets.models import convnet


@pytest.fixture
def network():
    return convnet(4, 5)


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (7, 3, 8, 8), dtype=torch.uint8, generator=generator)


def test_evaluating_gives_every_submodule_its_mode_back(network):
    network.train()
    network.stage2.eval()  # a frozen part
    with evaluating(network):
        assert not any(module.training for module in network.modules())
    assert network.stage1.norm.training
    assert not network.stage2.norm.training


def test_evaluating_gives_the_modes_back_after_an_error(network):
    with pytest.raises(KeyError), evaluating(network):
        raise KeyError("anything")
    assert all(module.training for module in network.modules())


@pytest.mark.parametrize("training", [True, False])
def test_predict_leaves_the_network_as_it_was(network, images, training):
    network.train(training)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    predict(network, images)
    assert network.training is training
    torch.testing.assert_close(network.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 1000])
def test_predict_does_not_depend_on_the_batch_size(network, images, batch_size):
    with torch.no_grad():
        expected = network.eval()(images.float() / 255)
    logits = predict(network, images, batch_size=batch_size)
    assert logits.shape == (7, 5)
    torch.testing.assert_close(logits, expected)


def test_predict_normalises(network, images):
    expected = predict(network, images.float() / 100)
    torch.testing.assert_close(predict(network, images, lambda x: x.float() / 100), expected)
    torch.testing.assert_close(predict(network, images), predict(network, images.float() / 255))


def test_predictions_may_enter_a_loss(network, images):
    """Tensors of inference mode may not be saved for a backward pass; predictions may."""
    targets = predict(network, images)
    assert not targets.requires_grad
    scale = torch.ones(5, requires_grad=True)
    (scale * targets).sum().backward()
    torch.testing.assert_close(scale.grad, targets.sum(0))


def test_predict_in_bfloat16(network, images):
    exact, rough = predict(network, images), predict(network, images, precision="bfloat16")
    assert rough.dtype == torch.float32
    assert not torch.equal(exact, rough)
    torch.testing.assert_close(exact, rough, rtol=0.05, atol=0.05)


def test_predict_without_weights(images):
    logits = predict(nn.Flatten(), images)
    torch.testing.assert_close(logits, images.flatten(1).float() / 255)


def test_predict_errors(network, images):
    with pytest.raises(
        ValueError, match=r"^x must hold at least one image; got shape \(0, 3, 8, 8\)$"
    ):
        predict(network, images[:0])
    with pytest.raises(ValueError, match=r"^batch_size must be at least 1; got 0$"):
        predict(network, images, batch_size=0)
    with pytest.raises(
        ValueError, match=r"^precision must be one of float32, bfloat16; got 'half'$"
    ):
        predict(network, images, precision="half")


def test_predict_in_the_type_of_the_network(network, images):
    exact = predict(network.double(), images.float() / 255)
    assert torch.equal(exact, predict(network, images))


def test_grey_levels_of_a_loader_need_a_word(network, images):
    batches = [(images, torch.zeros(len(images), dtype=torch.int64))]
    for look in (predict, predict_with_labels):
        with pytest.raises(ValueError, match="got uint8: normalise them"):
            look(network, batches)
    halves = predict(network, batches, lambda x: x.float() / 255)
    torch.testing.assert_close(halves, predict(network, images))
    with pytest.raises(ValueError, match="must have labels here; got labelled=False"):
        predict_with_labels(network, Batches(batches, labelled=False))


def test_one_tensor_is_asked_for():
    with pytest.raises(ValueError, match="must return one tensor; got dict"):
        one_tensor({})
