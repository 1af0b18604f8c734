"""The model and optimizer of the engine once more, in PyTorch: the reference its FP32 training is compared with.

Written against the design's formulas, not against the engine's code. Reads a folder with config.json, weights.safetensors
(initial values by parameter name) and tokens.bin (int32 [steps, micro_batches, batch, T + 1]); trains, and writes
losses.json and gradients.safetensors (of the first step, before the optimizer).
"""
import json
import math
import struct
import sys

import torch
import torch.nn.functional as F


def read_safetensors(path):
    with open(path, "rb") as f:
        data = f.read()
    (header_bytes,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + header_bytes])
    base = 8 + header_bytes
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        assert entry["dtype"] == "F32", (name, entry)
        first, last = entry["data_offsets"]
        flat = torch.frombuffer(bytearray(data[base + first : base + last]), dtype=torch.float32)
        tensors[name] = flat.reshape(entry["shape"]).clone()
    return tensors


def write_safetensors(path, tensors):
    header, blobs, offset = {}, [], 0
    for name, tensor in tensors.items():
        blob = tensor.detach().contiguous().numpy().tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + b"".join(blobs))


def norm(x):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)


class Model:
    def __init__(self, config, weights):
        self.c = config
        self.p = {name: torch.nn.Parameter(value) for name, value in weights.items()}
        self.router_bias = torch.zeros(config["depth"], config["experts"])
        self.load = torch.zeros(config["depth"], config["experts"])
        half = config["head_dim"] // 2
        frequency = config["rope_base"] ** (-torch.arange(half, dtype=torch.float64) * 2 / config["head_dim"])
        angle = torch.outer(torch.arange(config["T"], dtype=torch.float64), frequency)
        self.cos, self.sin = angle.cos().float()[:, None, :], angle.sin().float()[:, None, :]

    def rope(self, x):  # [B, T, H, D]
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * self.cos + b * self.sin, b * self.cos - a * self.sin], dim=-1)

    def attention(self, i, x, tokens):
        c, p = self.c, self.p
        B, T, d = x.shape
        H, D = d // c["head_dim"], c["head_dim"]
        q, k, v = ((x @ w.T).view(B, T, H, D) for w in p[f"layer{i}.wqkv"])
        if f"layer{i}.value_embedding" in p:
            gate = 3 * torch.sigmoid(x[..., :12] @ p[f"layer{i}.ve_gate"][0].T)
            v = v + gate[..., None] * p[f"layer{i}.value_embedding"][0][tokens].view(B, T, H, D)
        q, k = norm(self.rope(q)), norm(self.rope(k))
        back = torch.arange(T)[:, None] - torch.arange(T)[None, :]
        visible = (back >= 0) & (back < c["windows"][i])
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), attn_mask=visible)
        return y.transpose(1, 2).reshape(B, T, d) @ p[f"layer{i}.wo"][0].T

    def moe(self, i, x):
        p, k = self.p, self.c["top_k"]
        x = x.reshape(-1, x.shape[-1])
        probability = torch.sigmoid(x @ p[f"layer{i}.router"][0].T)
        picks = torch.topk(probability.detach() + self.router_bias[i], k, dim=-1).indices
        weight = probability.gather(1, picks)
        weight = weight / weight.sum(-1, keepdim=True)
        y = F.relu(x @ p[f"layer{i}.w1_shared"][0].T).square() @ p[f"layer{i}.w2_shared"][0].T
        for e in range(self.c["experts"]):
            token, pick = (picks == e).nonzero(as_tuple=True)
            self.load[i, e] += len(token)
            out = F.relu(x[token] @ p[f"layer{i}.w1"][e].T).square() @ p[f"layer{i}.w2"][e].T
            y = y.index_add(0, token, out * weight[token, pick, None])
        return y

    def loss(self, tokens, targets):
        p = self.p
        x0 = x = norm(p["wte"][0][tokens])
        for i in range(self.c["depth"]):
            if "resid_lambdas" in p:
                x = p["resid_lambdas"][0, 0, i] * x + p["x0_lambdas"][0, 0, i] * x0
            x = x + self.attention(i, norm(x), tokens)
            x = x + self.moe(i, norm(x)).view_as(x)
        logits = norm(x) @ p["lm_head"][0].T
        logits = self.c["softcap"] * torch.tanh(logits / self.c["softcap"])
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum")


# Polar Express, arXiv:2505.16932: five iterations with a safety factor of 2e-2.
POLAR_EXPRESS = [
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
]


def muon(weight, grad, state, lr, momentum, decay):
    """One matrix: Nesterov momentum, row equilibration, orthogonalisation, factored second moment, cautious decay."""
    rows, cols = weight.shape
    first = state.setdefault("first", torch.zeros_like(weight))
    first.lerp_(grad, 1 - momentum)
    g = grad.lerp(first, momentum)
    row = g.norm(dim=1, keepdim=True).clamp_min(1e-6)
    x = g * (g.norm() / math.sqrt(rows) / row)
    x = x / (x.norm() * 1.01 + 1e-6)
    tall = rows > cols
    x = x.T if tall else x
    for a, b, c in POLAR_EXPRESS:
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    x = x.T if tall else x
    x = x * (math.sqrt(min(rows, cols)) / x.norm().clamp_min(1e-6))
    over = 1 if rows >= cols else 0  # average over the shorter side
    mean_square = x.square().mean(dim=over, keepdim=True)
    second = state.setdefault("second", torch.zeros_like(mean_square))
    second.lerp_(mean_square, 1 - 0.9)
    scale = second.clamp_min(1e-10).rsqrt()
    new_norm = (x * scale).norm()
    x = x * scale * (x.norm() / new_norm.clamp_min(1e-10))
    agrees = (x * weight >= 0).float()
    lr = lr * math.sqrt(max(1, rows / cols))
    weight.sub_(lr * x + lr * decay * weight * agrees)


def adamw(weight, grad, state, lr, betas, decay, t):
    m = state.setdefault("m", torch.zeros_like(weight))
    v = state.setdefault("v", torch.zeros_like(weight))
    weight.mul_(1 - lr * decay)
    m.lerp_(grad, 1 - betas[0])
    v.lerp_(grad.square(), 1 - betas[1])
    m_hat, v_hat = m / (1 - betas[0] ** t), v / (1 - betas[1] ** t)
    weight.sub_(lr * m_hat / (v_hat.sqrt() + 1e-10))


def adamw_rule(name, c):
    width = math.sqrt(768 / c["d"])
    if name == "lm_head":
        return c["unembedding_lr"] * width, (0.8, 0.96), 0.01
    if name == "wte":
        return c["embedding_lr"] * width, (0.8, 0.995), 0.001
    if name.endswith("value_embedding"):
        return c["embedding_lr"] * width / 2, (0.8, 0.995), 0.01
    if name == "resid_lambdas":
        return c["scalar_lr"] / 100, (0.8, 0.95), 0.05
    if name == "x0_lambdas":
        return c["scalar_lr"], (0.96, 0.95), 0.0
    return None


def schedules(c, step):
    steps, down = c["steps"], round(c["warmdown_ratio"] * c["steps"])
    if step < c["warmup_steps"]:
        lr = (step + 1) / c["warmup_steps"]
    elif step <= steps - down:
        lr = 1.0
    else:
        left = (steps - step) / down
        lr = left + (1 - left) * c["final_lr_frac"]
    momentum = 0.85 + 0.12 * step / 400  # runs here are shorter than the 400 steps of the momentum's warm-up
    decay = c["weight_decay"] * 0.5 * (1 + math.cos(math.pi * step / steps))
    return lr, momentum, decay


@torch.no_grad()
def optimizer_step(model, states, step):
    lr, momentum, decay = schedules(model.c, step)
    for name, parameter in model.p.items():
        rule = adamw_rule(name, model.c)
        if rule is not None:
            base, betas, wd = rule
            adamw(parameter, parameter.grad, states.setdefault(name, {}), base * lr, betas, wd, step + 1)
            continue
        for j in range(parameter.shape[0]):
            state = states.setdefault((name, j), {})
            muon(parameter[j], parameter.grad[j], state, model.c["matrix_lr"] * lr, momentum, decay)


def main(folder):
    torch.set_num_threads(1)
    with open(f"{folder}/config.json") as f:
        c = json.load(f)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.set_default_device(device)  # products in FP32 on either: TF32 is off unless asked for
    weights = read_safetensors(f"{folder}/weights.safetensors")
    model = Model(c, {name: value.to(device) for name, value in weights.items()})
    with open(f"{folder}/tokens.bin", "rb") as f:
        raw = torch.frombuffer(bytearray(f.read()), dtype=torch.int32).long().to(device)
    raw = raw.view(c["steps_run"], c["micro_batches"], c["batch"], c["T"] + 1)
    tokens_per_step = c["micro_batches"] * c["batch"] * c["T"]
    losses, states = [], {}
    for step in range(c["steps_run"]):
        model.load.zero_()
        total = 0.0
        for parameter in model.p.values():
            parameter.grad = None
        for batch in raw[step]:
            loss = model.loss(batch[:, :-1], batch[:, 1:]) / tokens_per_step
            loss.backward()
            total += loss.item()
        losses.append(total)
        if step == 0:
            write_safetensors(f"{folder}/gradients.safetensors", {n: p.grad.cpu() for n, p in model.p.items()})
        optimizer_step(model, states, step)
        model.router_bias += c["router_bias_rate"] * torch.sign(model.load.mean(-1, keepdim=True) - model.load)
    with open(f"{folder}/losses.json", "w") as f:
        json.dump(losses, f)


if __name__ == "__main__":
    main(sys.argv[1])
