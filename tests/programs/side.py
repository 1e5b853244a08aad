"""A side of a comparison, see `benchmarks.worker`."""

LIBRARIES = ("numpy",)


def prepare(amount, fails=False):
    print("what a library says")
    done = []

    def step():
        done.append(amount)
        assert not fails
        return {"turn": len(done)}

    return step, lambda: {"amount": amount, "result": [sum(done)]}
