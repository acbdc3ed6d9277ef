"""Attacks on a run of one's own, from outside: what its updates, its sums and its model give away.

`python -m hyperlock.audit RUN_DIR` computes again, from a run's settings, data and checkpoint, what
its clients sent, and attacks it as others would:

- gradient inversion (`inversion`): samples out of one client's update, out of the released sum,
  under privacy out of the sum as it is released, out of a ciphertext;
- membership inference (`membership`): whether the model tells training samples from held-out ones;
- under privacy canaries (`privacy/canaries.py`): what one release shows of epsilon at least.

No party of a run takes part, and none has a hook for it: what a client does derives from (seed,
round, client), so that whoever has data and settings can do it again (`replay`), and nobody else
can. Noise, and what is drawn to hide somebody, does not: of that an audit draws its own.

What an audit shows is that an attack works. Where one fails, another may not: the attacks here are
simple ones, they are given one round and one model, and no figure of theirs is a bound on what a
better attack finds. Only an epsilon is one.
"""
