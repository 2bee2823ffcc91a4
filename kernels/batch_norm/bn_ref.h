// Batch norm + activation + stochastic depth + residual + pool in doubles: the oracle of every op with a BN
// inside.
#pragma once
#include <cmath>
#include <vector>

#include "kernels/activation/activation_ref.h"
#include "kernels/batch_norm/batch_norm.h"
#include "kernels/dropout/dropout.h"

namespace gm::ref {

struct BnRef {
  BatchNormAttrs attrs;
  Act act;
  int64_t images, rows, channels;    // rows: pixels of one image
  const double *gamma, *beta;        // beta may be null when there is no activation and no forward
  double *mean, *inv_std;            // saved
  const double* residual = nullptr;  // null: none
  std::vector<double> factor = {};   // stochastic depth, per image; empty: 1
  double* kept = nullptr;            // saved: the factors; null: not saved

  double factor_of(int64_t image) const { return factor.empty() ? 1 : factor[image]; }
};

/// The factors of a call; empty without stochastic depth.
inline std::vector<double> drop_path_factors(const OpCall& c, int64_t images) {
  const DropPath drop(c.attrs, c.ctx.step);
  std::vector<double> factor;
  for (int64_t n = 0; drop && n < images; ++n)
    factor.push_back(drop.factor(n) > 0 ? 1 / (1 - c.attrs.get("rate")) : 0);
  return factor;
}

/// The parts of a call that normalises a tensor of shape y: gamma is input `gamma`, the saved mean is
/// `saved`, both followed by their twins; residual: an optional input, -1 where the op has none.
inline BnRef bn_parts(const OpCall& c, int gamma, int saved, const Shape& y, int residual = -1) {
  return {.attrs = BatchNormAttrs(c.attrs),
          .act = act_of(c.attrs),
          .images = y[0],
          .rows = y.pixels() / y[0],
          .channels = y.channels(),
          .gamma = c.in[gamma].as<double>(),
          .beta = c.in[gamma + 1].as<double>(),
          .mean = c.saved[saved].as<double>(),
          .inv_std = c.saved[saved + 1].as<double>(),
          .residual = residual >= 0 && static_cast<int>(c.in.size()) > residual ? c.in[residual].as<double>()
                                                                                : nullptr,
          .factor = drop_path_factors(c, y[0]),
          .kept = c.attrs.get("rate", 0) > 0 ? c.saved[saved + 2].as<double>() : nullptr};
}

/// pooled may be null.
inline void bn_forward(const BnRef& r, const double* x, double* running_mean, double* running_var, double* y,
                       double* pooled) {
  const int64_t pixels = r.images * r.rows;
  for (int64_t n = 0; r.kept && n < r.images; ++n) r.kept[n] = r.factor_of(n);
  for (int64_t c = 0; c < r.channels; ++c) {
    double mean = running_mean[c], var = running_var[c];
    if (r.attrs.training) {
      mean = var = 0;
      for (int64_t p = 0; p < pixels; ++p) mean += x[p * r.channels + c];
      mean /= pixels;
      for (int64_t p = 0; p < pixels; ++p)
        var += (x[p * r.channels + c] - mean) * (x[p * r.channels + c] - mean);
      const double unbiased = pixels > 1 ? var / (pixels - 1) : var;
      var /= pixels;
      const double m = r.attrs.momentum;
      running_mean[c] = m * running_mean[c] + (1 - m) * mean;
      running_var[c] = m * running_var[c] + (1 - m) * (r.attrs.unbiased ? unbiased : var);
    }
    const double inv_std = 1 / std::sqrt(var + r.attrs.eps);
    if (r.mean) r.mean[c] = mean;
    if (r.inv_std) r.inv_std[c] = inv_std;
    for (int64_t n = 0; n < r.images; ++n) {
      double sum = 0;
      for (int64_t p = n * r.rows; p < (n + 1) * r.rows; ++p) {
        const int64_t i = p * r.channels + c;
        y[i] = act_value(r.act, r.gamma[c] * (x[i] - mean) * inv_std + r.beta[c]) * r.factor_of(n);
        if (r.residual) y[i] += r.residual[i];
        sum += y[i];
      }
      if (pooled) pooled[n * r.channels + c] = sum / r.rows;
    }
  }
}

/// dy and dpool may be null (zero). Writes dx, dgamma, dbeta (sizes of x, C, C), to be added by the caller.
inline void bn_backward(const BnRef& r, const double* x, const double* dy, const double* dpool,
                        std::vector<double>& dx, std::vector<double>& dgamma, std::vector<double>& dbeta) {
  const int64_t pixels = r.images * r.rows;
  dx.assign(pixels * r.channels, 0);
  dgamma.assign(r.channels, 0);
  dbeta.assign(r.channels, 0);
  for (int64_t c = 0; c < r.channels; ++c) {
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t i = p * r.channels + c;
      const double xhat = (x[i] - r.mean[c]) * r.inv_std[c];
      double d = dy ? dy[i] * r.factor_of(p / r.rows) : 0;
      if (dpool) d += dpool[p / r.rows * r.channels + c] / r.rows;
      if (r.act != Act::none) d *= act_slope(r.act, r.gamma[c] * xhat + r.beta[c]);
      dx[i] = d;
      dbeta[c] += d;
      dgamma[c] += d * xhat;
    }
    for (int64_t p = 0; p < pixels; ++p) {
      const int64_t i = p * r.channels + c;
      const double xhat = (x[i] - r.mean[c]) * r.inv_std[c];
      if (r.attrs.training) dx[i] -= (dbeta[c] + xhat * dgamma[c]) / pixels;
      dx[i] *= r.gamma[c] * r.inv_std[c];
    }
  }
}

/// Stores or adds a gradient as its mode asks.
inline void put_gradient(const GradView& g, const std::vector<double>& d) {
  if (!g) return;
  double* out = g.view.as<double>();
  for (size_t i = 0; i < d.size(); ++i) out[i] = (g.mode == GradMode::accumulate ? out[i] : 0) + d[i];
}

}  // namespace gm::ref
