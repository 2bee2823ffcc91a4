#include "data/synthetic.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>

#include "data/synthetic_render.h"
#include "kernels/common/error.h"
#include "kernels/common/philox.h"

namespace gm {
namespace {

using Kind = Profile::Kind;
using Colour = std::array<double, 3>;
constexpr double kDegree = std::numbers::pi / 180;

/// The kinds of galaxy that the class lists are made of.
enum class Type { disturbed, merging, round, between, cigar, barred, tight, loose, edge_on, edge_on_bulge };

/// From blue (0) to red (1) stars; the sum stays about the same.
Colour stars_of(double red) { return {0.85 + 0.4 * red, 0.97 - 0.04 * red, 1.2 - 0.62 * red}; }

struct Painter {
  PhiloxStream rng;
  Scene scene;
  double size = 1;  // of this galaxy, relative
  double gain = 1;  // brightness of this galaxy, relative
  double x = 0, y = 0;

  double in(double lo, double hi) { return rng.uniform(lo, hi); }
  double any_angle() { return in(0, 2 * std::numbers::pi); }
  bool chance(double p) { return rng.uniform() < p; }

  /// Adds a component of this galaxy. Callers draw its numbers inside braces: there, unlike between the
  /// arguments of a call, C++ fixes the order of evaluation, and with it the draws, for every compiler.
  void add(Profile p) {
    p.x = x, p.y = y;
    p.scale *= size;
    p.arm_start *= size;
    p.width *= size;
    p.brightness *= gain;
    scene.profiles.push_back(p);
  }

  void smooth(double q_low, double q_high) {
    // The same area whatever the axis ratio, so that size does not give the class away.
    double q = in(q_low, q_high), scale = in(9, 18) / std::sqrt(q);
    add({.angle = any_angle(),
         .q = q,
         .scale = scale,
         .brightness = in(0.1, 0.26),
         .n = in(1, 3.6),
         .colour = stars_of(in(0.35, 1))});
  }

  /// Disk + bulge (+ bar) with spiral arms of the given pitch in degrees.
  void spiral(double pitch_low, double pitch_high, bool barred, double q_low = 0.6) {
    double q = in(q_low, 1), angle = any_angle(), scale = in(13, 20), bulge = in(0.5, 1);
    double blue = in(0, 0.35), bar = barred ? in(0.75, 1.15) * scale : 0, bar_angle = any_angle();
    double winding = chance(0.5) ? kDegree : -kDegree;
    // A bar ends where the arms begin, so they share the angle in the plane of the disk.
    add({.kind = Kind::disk,
         .angle = angle,
         .q = q,
         .scale = scale,
         .brightness = in(0.22, 0.4),
         .arms = barred || chance(0.65) ? 2
                 : chance(0.5)          ? 3
                                        : 4,
         .pitch = winding * in(pitch_low, pitch_high),
         .arm_strength = in(1.1, 2.6),
         .arm_start = barred ? bar : in(0.25, 0.45) * scale,
         .phase = bar_angle,
         .clumps = in(0.3, 0.9),
         .colour = stars_of(blue + 0.2),
         .arm_colour = stars_of(blue - 0.2)});
    add({.angle = angle,
         .q = 0.5 + 0.5 * q,
         .scale = in(2.5, 4.5),
         .brightness = 0.5 * bulge,
         .n = in(1, 2.5),
         .colour = stars_of(in(0.6, 1))});
    if (barred) {
      double bx = std::cos(bar_angle), by = q * std::sin(bar_angle),
             length = std::hypot(bx, by);  // projected
      add({.kind = Kind::bar,
           .angle = angle + std::atan2(by, bx),
           .q = std::min(0.5, in(0.2, 0.3) / std::max(0.4, length)),
           .scale = bar * length,
           .brightness = in(0.3, 0.5),
           .colour = stars_of(in(0.5, 0.9))});
    }
  }

  void edge_on(bool bulge) {
    double angle = any_angle(), scale = in(15, 23), red = in(0.2, 0.8);
    add({.kind = Kind::edge_on,
         .angle = angle,
         .q = in(0.09, 0.15),
         .scale = scale,
         .brightness = in(0.45, 0.8),
         .dust = chance(0.5) ? in(0.3, 0.7) : 0,
         .colour = stars_of(red)});
    if (bulge)
      add({.angle = angle,
           .q = in(0.65, 0.95),
           .scale = in(0.28, 0.4) * scale,
           .brightness = in(0.35, 0.6),
           .n = in(1, 2.5),
           .colour = stars_of(in(0.7, 1))});
  }

  void tail(double brightness, double red) {
    add({.kind = Kind::tail,
         .angle = any_angle(),
         .scale = in(18, 26),
         .brightness = brightness,
         .width = in(2.5, 5),
         .sweep = in(1.2, 3.2),
         .colour = stars_of(red)});
  }

  void disturbed() {
    double red = in(0.1, 0.8);
    if (chance(0.5)) {
      spiral(15, 35, false, 0.5);
    } else {
      smooth(0.5, 0.9);
    }
    scene.warp = in(5, 9);
    for (int k = 1 + static_cast<int>(rng.below(2)); k > 0; --k) tail(in(0.06, 0.13), red);
    // Lopsided: an off-centre patch of young stars.
    double a = any_angle(), r = in(10, 20);
    x = r * std::cos(a), y = r * std::sin(a);
    add({.angle = any_angle(),
         .q = in(0.4, 0.9),
         .scale = in(6, 11),
         .brightness = in(0.05, 0.12),
         .n = 1,
         .colour = stars_of(in(-0.2, 0.3))});
  }

  void merging() {
    double a = any_angle(), r = in(11, 20), whole = size, light = gain;
    for (int side : {-1, 1}) {
      x = side * r * std::cos(a), y = side * r * std::sin(a);
      size = whole * in(0.5, 0.8);
      gain = light * in(0.9, 1.4);
      chance(0.5) ? smooth(0.5, 1) : spiral(15, 35, false, 0.5);
    }
    x = y = 0;
    size = whole, gain = light;
    double red = in(0, 0.5);
    // The common envelope and, mostly, tidal tails.
    add({.angle = a,
         .q = in(0.4, 0.8),
         .scale = in(20, 28),
         .brightness = in(0.03, 0.06),
         .n = 1,
         .colour = stars_of(red)});
    for (int k = static_cast<int>(rng.below(3)); k > 0; --k) tail(in(0.06, 0.14), red);
    scene.warp = in(1, 4);
  }

  void paint(Type type) {
    switch (type) {
      case Type::disturbed:
        return disturbed();
      case Type::merging:
        return merging();
      case Type::round:
        return smooth(0.9, 1);
      case Type::between:
        return smooth(0.52, 0.75);
      case Type::cigar:
        return smooth(0.2, 0.36);
      case Type::barred:
        return spiral(14, 28, true);
      case Type::tight:
        return spiral(7, 13, false);
      case Type::loose:
        return spiral(20, 34, false);
      case Type::edge_on:
        return edge_on(false);
      case Type::edge_on_bulge:
        return edge_on(true);
    }
  }

  /// Small galaxies and foreground stars; most away from the centre, a few on top of the galaxy.
  void surroundings() {
    for (int k = static_cast<int>(rng.below(5)); k > 0; --k) {
      double a = any_angle(), r = in(45, 160);
      x = r * std::cos(a), y = r * std::sin(a), size = gain = 1;
      add({.angle = any_angle(),
           .q = in(0.3, 1),
           .scale = in(1.5, 4),
           .brightness = in(0.05, 0.3),
           .n = in(1, 3),
           .colour = stars_of(in(0, 1.3))});
    }
    for (int k = static_cast<int>(rng.below(7)); k > 0; --k) {
      double a = any_angle(), r = chance(0.1) ? in(10, 40) : in(40, 170);
      scene.stars.push_back(
          {r * std::cos(a), r * std::sin(a), 1.5 * std::pow(in(0.12, 1), -2.0), stars_of(in(-0.3, 1.4))});
    }
  }
};

Type type_of(SyntheticSet set, int label, PhiloxStream& rng) {
  if (set == SyntheticSet::galaxy10) return static_cast<Type>(label);
  double u = rng.uniform();
  switch (label) {
    case 0:
      return Type::round;
    case 1:
      return Type::between;
    case 2:
      return Type::cigar;
    case 3:
      return u < 0.5 ? Type::edge_on : Type::edge_on_bulge;
    default:
      return u < 0.3 ? Type::barred : u < 0.65 ? Type::tight : Type::loose;
  }
}

const std::vector<std::string>& names_of(SyntheticSet set) {
  return set == SyntheticSet::galaxy10 ? galaxy10_classes() : gz5_classes();
}

// What stands on the picture of galaxy `index` of class `label`: the galaxy with random size, brightness,
// colour and orientation, neighbours, foreground stars, seeing and noise.
Scene draw_scene(SyntheticSet set, int label, uint64_t seed, uint32_t index) {
  GM_CHECK(label >= 0 && label < static_cast<int>(names_of(set).size()), "no such synthetic class");
  Painter painter{PhiloxStream(seed, RngUse::synth, static_cast<uint32_t>(set), index), {}};
  Type type = type_of(set, label, painter.rng);
  painter.scene.seed = seed;
  painter.scene.index = index;
  painter.size = painter.in(0.85, 1.4);
  painter.gain = painter.in(0.6, 1.4);
  painter.scene.psf = painter.in(1.4, 3.2);
  painter.scene.noise = painter.in(0.012, 0.035);
  painter.paint(type);
  painter.surroundings();
  return painter.scene;
}

}  // namespace

SyntheticDataset::SyntheticDataset(SyntheticSet set, int64_t count, int size, uint64_t seed)
    : set_(set), count_(count), px_(size), seed_(seed) {
  if (count < 1 || count > (int64_t{1} << 31)) fail("synthetic galaxies: count must be 1..2^31");
  if (size < 8 || size > 4096) fail("synthetic galaxies: size must be 8..4096 px");
}

const std::vector<std::string>& SyntheticDataset::classes() const { return names_of(set_); }

std::string SyntheticDataset::id(int64_t i) const {
  std::string digits = std::to_string(i);
  return "synth" + std::string(digits.size() < 6 ? 6 - digits.size() : 0, '0') + digits;
}

Image SyntheticDataset::read(int64_t i) const {
  return render(draw_scene(set_, label(i), seed_, static_cast<uint32_t>(i)), px_);
}

}  // namespace gm
