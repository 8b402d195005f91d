"""Any-Precision networks and AdaBits against the numbers of their own code."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from smallnets.quantize.layered import SwitchBatchNorm, adabits_unit, adabits_weights
from smallnets.quantize.layered.baselines import (
    AdaBits,
    AdaBitsInputs,
    DorefaInputs,
    DorefaWeights,
)
from smallnets.quantize.layered.network import QuantizedLayer


def close(found, expected):
    scale = max(float(np.abs(expected).max()), 1e-12)
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-5)


def test_golden_dorefa(values):
    u = torch.from_numpy(values["ap_u"])
    for i, bits in enumerate(values["ap_bits"].tolist()):
        w = torch.from_numpy(values["ap_w"]).requires_grad_()
        value = DorefaWeights()(w, bits)
        close(value.detach().numpy(), values["ap_w_out"][i])
        (slope,) = torch.autograd.grad((u * value).sum(), w)
        close(slope.numpy(), values["ap_w_grad"][i])
        x = torch.from_numpy(values["ap_x"])
        inputs = x.clamp(0, 1) if bits == 32 else x
        close(DorefaInputs()(inputs, bits).numpy(), values["ap_a_out"][i])


def test_dorefa_codes_do_not_nest(values):
    w = torch.from_numpy(values["ap_w"])
    unit = (w.tanh() / w.tanh().abs().max()) / 2 + 0.5
    fine = torch.round(unit * 255).long()
    broken = []
    for bits in (1, 2, 4):
        direct = torch.round(unit * (2**bits - 1)).long()
        broken.append(float((direct != fine >> (8 - bits)).double().mean()))
    np.testing.assert_allclose(broken, values["ap_direct_vs_truncated_disagree"], atol=1e-6)
    assert broken[1] > 0.1


class Block(nn.Module):
    """The pre-activation block of Any-Precision networks, of the library's parts."""

    def __init__(self, values):
        super().__init__()
        widths = values["apnet_bits"].tolist()
        state = {
            name.removeprefix("apnet_sd_"): torch.from_numpy(values[name])
            for name in values
            if name.startswith("apnet_sd_")
        }
        self.act = DorefaInputs()
        self.bn0, self.bn1 = (SwitchBatchNorm(nn.BatchNorm2d(c), widths) for c in (4, 8))
        convolutions = nn.Conv2d(4, 8, 3, 2, 1, bias=False), nn.Conv2d(8, 8, 3, 1, 1, bias=False)
        self.conv0, self.conv1 = (QuantizedLayer(c, DorefaWeights(), None) for c in convolutions)
        self.skip_conv = nn.Conv2d(4, 8, 1, 2, bias=False)
        self.skip_bn = nn.BatchNorm2d(8)
        renamed = {
            name.replace(".bn_dict.", ".norms.").replace("conv0.w", "conv0.layer.w"): value
            for name, value in state.items()
        }
        renamed = {n.replace("conv1.w", "conv1.layer.w"): v for n, v in renamed.items()}
        missing, unexpected = self.load_state_dict(renamed, strict=False)
        assert not unexpected
        assert all("num_batches" in name for name in missing)

    def forward(self, x, bits):
        for part in (self.bn0, self.bn1, self.conv0, self.conv1):
            part.bits = bits
        a = self.act(self.bn0(x), bits)
        skip = self.skip_bn(self.skip_conv(a))
        return skip + self.conv1(self.act(self.bn1(self.conv0(a)), bits))


def test_golden_any_precision_block(values):
    for i, bits in enumerate(values["apnet_bits"].tolist()):
        block = Block(values).eval()
        x = torch.from_numpy(values["apnet_x"]).requires_grad_()
        out = block(x, bits)
        close(out.detach().numpy(), values["apnet_out_eval"][i])
        (slope,) = torch.autograd.grad(out.square().mean(), x)
        close(slope.numpy(), values["apnet_gradx_eval"][i])
        close(block.train()(x, bits).detach().numpy(), values["apnet_out_train"][i])


@pytest.mark.parametrize("scheme", ["original", "modified", "centered"])
def test_golden_adabits_units(values, scheme):
    v = torch.from_numpy(values["ab_v"])
    for i, bits in enumerate(values["ab_bits"].tolist()):
        close(adabits_unit(v, bits, scheme).numpy(), values[f"ab_qk_{scheme}"][i])


@pytest.mark.parametrize("scheme", ["modified", "centered"])
@pytest.mark.parametrize("rescale", [0, 1])
def test_golden_adabits_convolution(values, scheme, rescale):
    name = f"{scheme}_rs{rescale}"
    widths = values["ab_bits"].tolist()
    for i, bits in enumerate(widths):
        w = torch.from_numpy(values["ab_w"]).requires_grad_()
        inputs = AdaBitsInputs(widths)
        for width, alpha in zip(widths, values["ab_alpha"], strict=True):
            inputs.levels[str(width)].data.fill_(float(alpha))
        x = inputs(torch.from_numpy(values["ab_x"]), bits)
        out = F.conv2d(x, adabits_weights(w, bits, scheme, bool(rescale)), padding=1)
        close(out.detach().numpy(), values[f"ab_conv_{name}"][i])
        levels = [inputs.levels[str(width)] for width in widths]
        by_w, *by_levels = torch.autograd.grad(out.square().mean(), [w, *levels], allow_unused=True)
        close(by_w.numpy(), values[f"ab_convgw_{name}"][i])
        mine = np.array([0.0 if g is None else float(g) for g in by_levels])
        close(mine, values[f"ab_convga_{name}"][i])


@given(st.floats(0, 1), st.integers(2, 8))
def test_the_modified_scheme_nests(value, bits):
    v = torch.tensor(value, dtype=torch.float64)
    fine = (adabits_unit(v, bits, "modified") * 2**bits).long()
    coarse = (adabits_unit(v, bits - 1, "modified") * 2 ** (bits - 1)).long()
    assert coarse == fine >> 1


def test_the_original_scheme_does_not_nest():
    v = torch.linspace(0, 1, 101, dtype=torch.float64)
    fine = (adabits_unit(v, 3, "original") * 7).round().long()
    coarse = (adabits_unit(v, 2, "original") * 3).round().long()
    assert (coarse != fine >> 1).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: adabits_unit(torch.ones(1), 2, "floor"), "scheme must be one of"),
        (lambda: AdaBits(scheme="floor"), "scheme must be one of"),
    ],
)
def test_what_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
