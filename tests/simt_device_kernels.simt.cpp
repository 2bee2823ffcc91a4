#include "tests/simt_device_kernels.cu"
