// Every graph that the networks of models/ ask cuDNN for, each once.
#pragma once
#include <string>
#include <vector>

#include "kernels/conv2d/conv2d_cudnn.h"

namespace gm::test {

using namespace gm::cuda;

struct NetworkQuestion {
  CudnnQuestion question;
  std::string layer;  // the first that asks: "effg0 block2a_expand_conv"
};

/// Of one training step: convolutions and both gradients, where the layer's input has one.
std::vector<NetworkQuestion> training_questions(int64_t batch, DType dtype);
/// Of a folded network: a convolution with its epilogue, and alone, where cuDNN has no kernel for both.
std::vector<NetworkQuestion> inference_questions(int64_t batch, DType dtype);

/// "forward+bias+silu bf16 64x112x112x24 -> 112x112x96 k3 s2 pad 0,0,1,1"
std::string question_text(const CudnnQuestion& q);

}  // namespace gm::test
