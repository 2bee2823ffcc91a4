// Adds a weight penalty to a loss, as Keras's kernel_regularizer l2 does: no 1/2 in front, so the gradient
// has a 2.
//   y = loss + factor * sum w^2            dloss = dy,  dw = 2 factor w dy
// attrs  factor  >= 0
// in[0]  loss  f32 (1)
// in[1]  w     any shape, f32 or bf16; parameter: its gradient is f32
// out[0] y     f32 (1)
// Backward reads w.
#pragma once
