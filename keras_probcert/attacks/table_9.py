"""The attacks of the paper's Table 9, by name."""

from keras_probcert.attacks.apgd import APGD
from keras_probcert.attacks.apgdt import APGDT
from keras_probcert.attacks.bim import BIM
from keras_probcert.attacks.cw import CW
from keras_probcert.attacks.difgsm import DIFGSM
from keras_probcert.attacks.eotpgd import EOTPGD
from keras_probcert.attacks.fab import FAB
from keras_probcert.attacks.ffgsm import FFGSM
from keras_probcert.attacks.fgsm import FGSM
from keras_probcert.attacks.gaussian_noise import GaussianNoise
from keras_probcert.attacks.jitter import Jitter
from keras_probcert.attacks.mifgsm import MIFGSM
from keras_probcert.attacks.nifgsm import NIFGSM
from keras_probcert.attacks.one_pixel import OnePixel
from keras_probcert.attacks.pgd import PGD
from keras_probcert.attacks.pgdl2 import PGDL2
from keras_probcert.attacks.pixle import Pixle
from keras_probcert.attacks.rfgsm import RFGSM
from keras_probcert.attacks.sinifgsm import SINIFGSM
from keras_probcert.attacks.square import Square
from keras_probcert.attacks.tifgsm import TIFGSM
from keras_probcert.attacks.tpgd import TPGD
from keras_probcert.attacks.upgd import UPGD
from keras_probcert.attacks.vmifgsm import VMIFGSM
from keras_probcert.attacks.vnifgsm import VNIFGSM

# Their default arguments are those of the table.
TABLE_9 = {
    attack.__name__: attack
    for attack in (
        *(FGSM, BIM, PGD, PGDL2, MIFGSM, DIFGSM, TIFGSM, NIFGSM, SINIFGSM, VMIFGSM),
        *(VNIFGSM, RFGSM, FFGSM, TPGD, UPGD, EOTPGD, Jitter, APGD, APGDT, FAB, CW),
        *(Square, OnePixel, Pixle, GaussianNoise),
    )
}
