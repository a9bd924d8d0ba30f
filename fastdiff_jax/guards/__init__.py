"""Arguments against their annotations, before anything runs.

`@checked` reads a function's annotations once and checks every call's arguments by
them, so that a rule is written where a reader looks for it:

    int                 a whole number, no truth value
    float               a finite real number; `Extended` may be infinite
    bool                True or False
    Literal["a", "b"]   one of these
    ArrayLike, Array    real numbers, none of them NaN
    Key                 a random key of jax, of the old kind or the new
    Process, Denoiser   what has their methods; a plain f(x, t) is no Denoiser
    a class             an instance of it
    X | Y, tuple[X]     one of them; each of them

Numbers of concrete jax arrays become NumPy's; traced ones pass.
"""

from .annotations import checked as checked
from .limits import bounded as bounded
from .limits import broadcasts as broadcasts
from .limits import in_domain as in_domain
from .limits import positive as positive
from .limits import real as real
from .limits import within as within
from .refusals import must as must
from .refusals import shown as shown
