"""An encoder too large for one device: weights and optimiser state sharded by FSDP, negatives gathered from all processes.

    torchrun --nproc-per-node 2 examples/fsdp_loop.py

Every process reads its share of the batch; `gather` brings all vectors together with their gradients, so that the loss is
that of one process with the whole batch. `gather` adds the gradients of all processes up and FSDP averages them, which
together is the gradient of that loss. Saving gathers the shards again, on every process, and the first one writes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

from rivals.data import load_sample
from rivals.losses import in_batch_info_nce_loss
from rivals.models import Encoder
from rivals.training.distributed import gather, join_world


def main(model: str = "all-MiniLM-L6-v2", steps: int = 3, pairs: int = 8, save: str = "") -> list[float]:
    """Train on the first pairs of the sample; return the loss of every step, the same on all processes."""
    world = join_world()
    encoder = Encoder.load(model, device="cpu", dtype="float32").eval()
    if world.size > 1:
        for layer in encoder.backbone.encoder.layer:
            fully_shard(layer)
        fully_shard(encoder.backbone)
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=1e-4, eps=1e-6)
    sample, losses = load_sample().split("train"), []
    for step in range(steps):
        rows = world.share(list(range(step * pairs, (step + 1) * pairs)))
        documents = [
            int(sample.judgements.positives.document[sample.judgements.positives.offsets[row]]) for row in rows
        ]
        texts = ([sample.queries.texts[row] for row in rows], [sample.documents.texts[row][:300] for row in documents])
        vectors = []
        for side in texts:
            read = encoder.tokenizer(side, padding=True, truncation=True, max_length=64, return_tensors="pt")
            vectors.append(gather(encoder(read["input_ids"], read["attention_mask"]), world))
        loss = in_batch_info_nce_loss(*vectors, temperature=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    if save:
        whole = get_model_state_dict(encoder, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
        if world.is_main:
            fresh = Encoder.load(model, device="cpu", dtype="float32")
            fresh.load_state_dict(whole)
            fresh.save(Path(save))
        world.barrier()
    return losses


if __name__ == "__main__":
    options = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}
    print(json.dumps(main(**options)), flush=True)
