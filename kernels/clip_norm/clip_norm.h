// Gradient clipping by the global norm (Pascanu et al. 2013, algorithm 1), as Keras's global_clipnorm does
// it.
//   norm = sqrt(sum g^2)        g = g * limit / max(norm, limit)
// attrs  limit  > 0
// in[0]  anything, absent: the op works on its state
// state  g  f32 (P), in place
// out[0] norm  f32 (1), before clipping
// No gradient. A norm that is not finite leaves NaN in g: the loss of the next step tells.
#pragma once
