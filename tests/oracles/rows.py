"""The meaning of a plan's rows, written out: one register and one weight at a time."""


def run(plan, predict, x, z=None):
    """The sample of a plan without element weights or matrices.

    predict: (point, row) -> D, or a tuple of them; z: one draw per row, one more in
    front if the start draws.
    """
    rows, begin = plan.rows, plan.start
    z = [] if z is None else list(z)
    registers = []
    first = z.pop(0) if begin.noise is not None and z else None
    for k in range(plan.registers):
        value = begin.x[k] * x
        if first is not None:
            value = value + begin.noise[k] * first
        if begin.bias is not None:
            value = value + begin.bias[k]
        registers.append(value)
    for i in range(plan.length):
        if rows.active is not None and not rows.active[i]:
            continue
        found = predict(registers[0], i)
        found = found if isinstance(found, tuple) else (found,)
        new = list(registers)
        for w in range(rows.to.shape[1]):
            value = 0.0 * x
            for k in range(plan.registers):
                value = value + rows.registers[i, w, k] * registers[k]
            for p, d in enumerate(found):
                value = value + rows.predictions[i, w, p] * d
            if rows.noise is not None and w < rows.noise.shape[1] - 1 and z:
                value = value + rows.noise[i, w] * z[i]
            if rows.bias is not None:
                value = value + rows.bias[i, w]
            new[rows.to[i, w]] = value
        registers = new
    return registers[0]
