"""The runner of ranks on cards, on a CPU: two processes, gloo and Triton's interpreter, against the plain runner.

TRITON_INTERPRET=1 python tests/graph_ranks.py
"""

import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import torch
import torch.distributed as dist
from graph_engine import CARD, PLAIN, play
from interpreter import hurry

from tinyllm.model.backends import PagedAttention
from tinyllm.model.transformer import ModelConfig, Transformer
from tinyllm.model.weights import load_model, save_model
from tinyllm.parallel.executors import DistributedGroup
from tinyllm.parallel.tensor import shard

CONFIG = ModelConfig(vocab_size=33, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
                     num_key_value_heads=1, head_dim=16, max_position_embeddings=32, qk_norm=True)  # fmt: skip
WISHES = ({"top_k": 4, "top_p": 0.9}, {"min_p": 0.1, "repetition_penalty": 1.3, "logprobs": -1},  # of all tokens
          {"prompt_logprobs": 3})


def make_checkpoint(folder: Path) -> None:
    torch.manual_seed(0)
    model = Transformer(CONFIG).requires_grad_(False)
    for weight in model.parameters():
        weight.normal_(0, 0.5) if weight.dim() > 1 else weight.uniform_(0.5, 1.5)
    save_model(model, folder, torch.float32)


def be_rank(rank: int, folder: Path) -> None:
    """Like a rank under a launcher: an engine of its own, which makes the same plans."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    group = DistributedGroup([0, 1], dist.group.WORLD)
    mine = load_model(folder, "float32", "cpu", PagedAttention(), lambda empty: shard(empty, group))
    whole = load_model(folder, "float32", "cpu", PagedAttention())
    for wishes in WISHES:
        found, given_way, ran = play(mine, CARD, wishes)
        expected, *_ = play(whole, PLAIN, wishes)
        assert ran == {"triton"}, ran
        assert found == expected, (rank, wishes, found, expected)
        assert given_way, "nobody was preempted: the cache is not small enough for this test"
        if rank == 1:
            print("same tokens on two ranks", [tokens for tokens, *_ in found], flush=True)


if __name__ == "__main__":
    hurry()
    if len(sys.argv) > 1:
        be_rank(int(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            make_checkpoint(Path(folder))
            ranks = [subprocess.Popen([sys.executable, __file__, str(rank), folder]) for rank in range(2)]
            sys.exit(max(abs(rank.wait()) for rank in ranks))
