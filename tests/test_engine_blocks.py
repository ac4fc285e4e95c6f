"""Pool, tables and prefix cache by hand, without the scheduler's good manners: any order, any fence."""

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from test_engine_scheduler import PROFILE

from tinyllm.engine.blocks import BlockPool, BlockTables
from tinyllm.engine.prefix import PrefixCache, hash_block_tokens

ROWS, SIZE, LONGEST = 4, 2, 8


class BlockMachine(RuleBasedStateMachine):
    """Rows are filled, forked, named, let go with and without a fence; beside it a plain account of it all.

    The account: the blocks of each row, the fenced ones with their step, the idle ones in the order in
    which they must go: those without a name before those with one, and those longest idle first.
    """

    @initialize(blocks=st.integers(1, 12))
    def start(self, blocks):
        self.cache = PrefixCache()
        self.pool, self.tables = BlockPool(blocks, self.cache.forget), BlockTables(ROWS, LONGEST, SIZE)
        self.rows = [[] for _ in range(ROWS)]
        self.texts = [[] for _ in range(ROWS)]  # what is written in each row's blocks
        self.fenced, self.idle, self.content, self.step, self.evicted = [], [], {}, 0, 0

    def held(self):
        return Counter(b for row in [*self.rows, *(blocks for _, blocks in self.fenced)] for b in row)

    def let_go(self, before):
        """Account for blocks that nobody holds any more; they came back last block first."""
        held = self.held()
        for block in reversed(before):
            if not held[block] and block not in self.idle:
                self.idle.append(block)

    @rule(row=st.integers(0, ROWS - 1), count=st.integers(1, LONGEST), letter=st.integers(1, 3))
    def grow(self, row, count, letter):
        count = min(count, LONGEST - len(self.rows[row]), self.pool.num_free_blocks)
        named = set(self.pool.block_hashes)
        blocks = self.pool.get_new_blocks(count)
        self.tables.append(np.array([row]), np.array([count]), blocks)
        nameless = [b for b in self.pool.free_block_queue if b not in named]
        assert not nameless or not named & set(blocks), "content is lost while an empty block is idle"
        reused = [b for b in blocks if b in named]
        assert reused == [b for b in self.idle if b in named][: len(reused)], "not the longest idle one goes first"
        self.evicted += len(reused)
        self.idle = [b for b in self.idle if b not in blocks]
        self.rows[row] += blocks
        self.texts[row] += [letter] * SIZE * count
        self.content.update({block: self.texts[row][: SIZE * (i + 1)] for i, block in enumerate(self.rows[row])})

    @rule(row=st.integers(0, ROWS - 1))
    def name(self, row):
        names, ids = [], np.array(self.texts[row], np.int32)
        hash_block_tokens(names, ids, len(self.rows[row]), SIZE, None)
        for block, name in zip(self.rows[row], names, strict=True):
            self.cache.register(self.pool, block, name)

    @rule(parent=st.integers(0, ROWS - 1), child=st.integers(0, ROWS - 1), keep=st.integers(0, LONGEST))
    def fork(self, parent, child, keep):
        if not self.rows[child]:
            self.move_in(child, self.rows[parent][:keep], self.texts[parent][: keep * SIZE])

    @rule(row=st.integers(0, ROWS - 1), letters=st.lists(st.integers(1, 3), max_size=4))
    def come_back(self, row, letters):
        """Somebody with a past looks for it."""
        if self.rows[row]:
            return
        names, text = [], [letter for letter in letters for _ in range(SIZE)]
        hash_block_tokens(names, np.array(text, np.int32), len(letters), SIZE, None)
        found = self.cache.lookup(names)
        for i, block in enumerate(found):
            assert self.content[block] == text[: SIZE * (i + 1)], "a block is found that holds something else"
        self.move_in(row, found, text[: SIZE * len(found)])

    def move_in(self, row, blocks, text):
        self.pool.touch(blocks)
        self.tables.append(np.array([row]), np.array([len(blocks)]), blocks)
        self.idle = [b for b in self.idle if b not in blocks]
        self.rows[row], self.texts[row] = list(blocks), list(text)

    @rule(row=st.integers(0, ROWS - 1), ahead=st.integers(0, 2))
    def let_row_go(self, row, ahead):
        blocks = self.tables.take(row)
        assert blocks == self.rows[row]
        fence = max([self.step + ahead, *(step for step, _ in self.fenced)]) if ahead else self.step
        self.pool.free_blocks(blocks, fence)
        self.rows[row], self.texts[row] = [], []
        if ahead:
            self.fenced.append((fence, blocks))
        else:
            self.let_go(blocks)

    @rule(count=st.integers(1, 2))
    def steps_end(self, count):
        self.step += count
        self.pool.finish_step(self.step)
        while self.fenced and self.fenced[0][0] <= self.step:
            self.let_go(self.fenced.pop(0)[1])

    @precondition(lambda self: self.pool.free_block_queue)
    @rule(data=st.data())
    def free_what_nobody_holds(self, data):
        block = data.draw(st.sampled_from(sorted(self.pool.free_block_queue)))
        with pytest.raises(ValueError, match=f"block {block} is freed, but nobody holds it"):
            self.pool.free_blocks([block])

    @invariant()
    def the_account_and_the_pool_agree(self):
        pool, held = self.pool, self.held()
        everything = range(1, pool.num_blocks + 1)
        assert [held[b] for b in everything] == pool.ref_counts[1:] and pool.ref_counts[0] == 0
        assert set(pool.free_block_queue) == {b for b in everything if not held[b]} and 0 not in pool.free_block_queue
        named = [b for b in pool.free_block_queue if b in pool.block_hashes]
        assert [b for b in self.idle if b in pool.block_hashes] == named, "the order of eviction"
        assert list(pool.free_block_queue)[pool.num_free_blocks - len(named) :] == named, "an empty block goes first"
        assert {block: name for name, block in self.cache.blocks.items()} == pool.block_hashes
        assert self.cache.evictions == self.evicted
        for row, blocks in enumerate(self.rows):
            assert self.tables.table[row, : self.tables.length[row]].tolist() == blocks


BlockMachine.TestCase.settings = PROFILE
TestBlockMachine = BlockMachine.TestCase


def test_both_machines_run_where_torch_cannot_be_imported():
    code = (
        "import sys, unittest; sys.modules['torch'] = None\n"
        "from test_engine_blocks import TestBlockMachine\nfrom test_engine_scheduler import TestEngineMachine\n"
        "unittest.main(verbosity=0)"
    )
    environment = {**os.environ, "TINYLLM_EXAMPLES": "5"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=Path(__file__).parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "Ran 2 tests" in done.stderr, done.stderr


def test_an_empty_block_goes_before_one_with_content_whenever_it_came_back():
    cache = PrefixCache()
    pool = BlockPool(2, cache.forget)
    with_content, empty = pool.get_new_blocks(2)
    cache.register(pool, with_content, b"a name")
    pool.free_blocks([with_content])
    pool.free_blocks([empty])
    assert list(pool.free_block_queue) == [empty, with_content]
    assert pool.get_new_blocks(1) == [empty] and cache.evictions == 0


def test_a_name_stays_with_its_first_block():
    """Two requests may compute the same text at once. The second block with it has no name, and can go by itself."""
    cache = PrefixCache()
    pool = BlockPool(3, cache.forget)
    first, second = pool.get_new_blocks(2)
    cache.register(pool, first, b"a name")
    cache.register(pool, second, b"a name")
    assert cache.blocks == {b"a name": first} and second not in pool.block_hashes
    pool.free_blocks([second])
    pool.get_new_blocks(2)  # the second's content is gone, and the name still leads to the first
    assert cache.blocks == {b"a name": first}
