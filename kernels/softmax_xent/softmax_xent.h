// Softmax and cross-entropy in one: the training loss of a classifier.
//   p = softmax(z),  t' = (1 - smoothing) t + smoothing / C
//   loss_i = -sum_c t'_ic log p_ic
//   loss = sum_i w_i loss_i / count          (count: rows that count, whatever their weight; as Keras does)
//   dz_ic = dloss * w_i (p_ic - t'_ic) / count                              (soft targets sum to 1)
// attrs  smoothing  label smoothing in [0, 1], default 0
// in[0]  z  (N, C) logits, f32 or bf16
// in[1]  targets: i32 (N) class index, negative = the row does not count; or f32 (N, C) soft targets whose
//        rows sum to 1, a first one that is negative: the row does not count. A label >= C is a broken
//        input: the loss and that row's gradient become NaN.
// in[2]  class weights (C) f32, optional. w_i = weight of the label; of soft targets sum_c t_ic weight_c;
//        without weights 1. Taken before smoothing.
// out[0] loss     f32 (1); 0 when no row counts
// out[1] correct  f32 (1): counted rows whose largest logit is that of the label (of the largest target);
//                 the first of equals. No gradient.
// saved  [0] p f32 (N, C)   [1] w f32 (N), 0 for rows that do not count   [2] 1 / count f32 (1), or 0
// The largest logit is subtracted first: any finite logits are safe.
// Backward reads the targets and saved.
#pragma once
