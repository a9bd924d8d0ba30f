"""Who makes z: keys per sample and row, recorded noise, or a path of the noise.

The room knows plans (to read where a path's rows stand), no engine and no network.
"""

from .ou_path import OUPath as OUPath
from .ou_path import ou_path as ou_path
from .streams import keys_of as keys_of
from .streams import normal as normal
from .streams import side_noise as side_noise
