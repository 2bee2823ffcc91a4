// A scene of analytic light profiles and its picture.
#pragma once
#include <array>
#include <cstdint>
#include <vector>

#include "data/image.h"

namespace gm {

/// One light component. Lengths in px of a 256-px frame, angles in radians, brightness in units in which
/// about 0.02 is the sky noise and 1 is nearly white.
struct Profile {
  enum class Kind {
    sersic,   ///< exp(-b_n ((r/scale)^(1/n) - 1)): brightness is that at the half-light radius `scale`
    disk,     ///< exp(-r/scale), seen under axis ratio q, with log-spiral arms where arms > 0
    edge_on,  ///< exp(-|x|/scale) sech^2(z/(q scale)), with a dust lane of depth `dust`
    bar,      ///< a flat-topped box-like ellipse of half length `scale`
    tail      ///< a curved tidal arm that starts at radius `scale` and sweeps `sweep` rad outwards
  };
  Kind kind = Kind::sersic;
  double x = 0, y = 0;  ///< offset from the centre of the frame
  double angle = 0;     ///< position angle of the long axis
  double q = 1;         ///< axis ratio
  double scale = 10;
  double brightness = 0.1;
  double n = 4;                  ///< Sersic index
  int arms = 0;                  ///< number of spiral arms
  double pitch = 0.3;            ///< pitch angle: small is tightly wound; its sign is the winding sense
  double arm_strength = 0;       ///< light of the arms over that of the disk at the same radius
  double arm_start = 0;          ///< radius at which the arms begin
  double phase = 0, clumps = 0;  ///< arm angle at arm_start; share of light that is patchy
  double dust = 0, width = 3, sweep = 2;
  std::array<double, 3> colour{1, 1, 1};      ///< R, G, B
  std::array<double, 3> arm_colour{1, 1, 1};  ///< of the arms
};

/// A point source: brightness is the sum of its light, in brightness units times px.
struct Star {
  double x = 0, y = 0, brightness = 1;
  std::array<double, 3> colour{1, 1, 1};
};

struct Scene {
  std::vector<Profile> profiles;
  std::vector<Star> stars;
  double psf = 1.5;     ///< sigma of the seeing, px of the 256-px frame
  double noise = 0.02;  ///< sigma of the sky
  double warp = 0;      ///< px by which the galaxy's light is displaced, by slow random waves
  uint64_t seed = 0;    ///< of warp, clumps and noise
  uint32_t index = 0;
};

/// Renders a scene (size, size) px: profiles, point-spread function, noise, then the asinh stretch of
/// Lupton et al. 2004 over all channels together, which keeps the colours. The same scene gives the same
/// pixels.
Image render(const Scene& scene, int size);

}  // namespace gm
