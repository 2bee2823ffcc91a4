#include "layers/check_maxima.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace gm {

std::vector<MaximaPlace> maxima_places(const Graph& graph) {
  std::vector<MaximaPlace> places;
  for (size_t i = 0; i < graph.nodes().size(); ++i) {
    const Node& n = graph.nodes()[i];
    if (!n.op->saved) continue;
    const Specs in = graph.input_specs(n), saved = n.op->saved(n.attrs, in);
    for (size_t k = 0; k < saved.size(); ++k) {
      if (saved[k].dtype != DType::i32) continue;
      // A pool that is fused with what comes before it pools its own first output.
      const bool fused = n.out.size() > 1 && graph.spec(n.out[0]).shape == in[0].shape;
      places.push_back({static_cast<int>(i), k, fused ? n.out[0] : n.in[0], saved[k].shape.rank == 3});
    }
  }
  return places;
}

bool lie_inside(const Graph& graph, const MaximaPlace& place, const std::vector<int32_t>& at) {
  const Shape& s = graph.spec(place.pooled).shape;
  const int64_t candidates = place.of_channels ? s[3] : s[1] * s[2];
  return std::all_of(at.begin(), at.end(), [&](int32_t p) { return p >= 0 && p < candidates; });
}

Difference compare_maxima(const Graph& graph, const MaximaPlace& place, const Maxima& ours,
                          const Maxima& theirs) {
  const Shape& s = graph.spec(place.pooled).shape;
  const int64_t hw = s[1] * s[2], channels = s[3];
  Difference d{Difference::maximum, graph.nodes()[place.node].name};
  GM_CHECK(ours.at.size() == theirs.at.size(), "maxima of different sizes at " + d.name);
  if (!lie_inside(graph, place, ours.at) || !lie_inside(graph, place, theirs.at)) {
    d.max = d.mean = d.relative = std::numeric_limits<double>::infinity();
    return d;
  }
  float top = 0;
  for (size_t i = 0; i < ours.at.size(); ++i) {
    auto value = [&](const std::vector<float>& values, int32_t at) {
      const int64_t k = static_cast<int64_t>(i);
      return values[place.of_channels ? k * channels + at
                                      : (k / channels * hw + at) * channels + k % channels];
    };
    top = std::max(top, std::abs(value(ours.values, ours.at[i])));
    if (ours.at[i] == theirs.at[i]) continue;
    ++d.moved;
    const double short_by = double(value(theirs.values, theirs.at[i])) - value(theirs.values, ours.at[i]);
    const double wrong_by = double(value(ours.values, theirs.at[i])) - value(ours.values, ours.at[i]);
    d.max = std::max(d.max, short_by);
    d.mean += short_by / double(ours.at.size());
    if (!(wrong_by <= d.relative)) d.relative = wrong_by;  // NaN stays
  }
  if (top > 0) d.relative /= top;
  return d;
}

MaximaExchange::MaximaExchange(const Graph& graph, std::vector<Maxima>& found,
                               const std::vector<Maxima>* given, std::vector<Difference>& compared)
    : graph_(graph), places_(maxima_places(graph)), found_(found), given_(given), compared_(compared) {
  found_.resize(places_.size());
}

void MaximaExchange::take_values(const std::function<std::vector<float>(ValueId)>& read) {
  for (size_t i = 0; i < places_.size(); ++i) found_[i].values = read(places_[i].pooled);
}

void MaximaExchange::exchange(Device& device, const std::function<View(const MaximaPlace&)>& saved,
                              const std::string& side) {
  for (size_t i = 0; i < places_.size(); ++i) {
    const View v = saved(places_[i]);
    found_[i].at.resize(static_cast<size_t>(v.numel()));
    device.download(found_[i].at.data(), v.data, v.spec.bytes());
    if (given_) {
      compared_.push_back(compare_maxima(graph_, places_[i], found_[i], (*given_)[i]));
      device.upload(v.data, (*given_)[i].at.data(), v.spec.bytes());
    } else if (!lie_inside(graph_, places_[i], found_[i].at)) {
      fail(side + ": a maximum of layer '" + graph_.nodes()[places_[i].node].name +
           "' lies outside its tensor");
    }
  }
}

}  // namespace gm
