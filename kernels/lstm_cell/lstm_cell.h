// One step of a long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al.
// 2000), behind its matrix products:
//   c' = sigmoid(f) * c + sigmoid(i) * tanh(g)        h = sigmoid(o) * tanh(c')
// in[0]  gates (N, 4 H) f32: i, f, g, o one behind the other, as PyTorch has them; W x + U h_before
// in[1]  c     (N, H)   f32
// out[0] h     (N, H)   f32
// out[1] c'    (N, H)   f32
// f32 only: the one user, the search's controller, is a few thousand times smaller than the networks it
// samples. Backward reads gates, c and c', with s' = s (1 - s):
//   e = dc' + dh sigmoid(o) (1 - tanh^2 c')
//   di = e tanh(g) s'(i)   df = e c s'(f)   dg = e sigmoid(i) (1 - tanh^2 g)   do = dh tanh(c') s'(o)
//   dc = e sigmoid(f)
#pragma once
