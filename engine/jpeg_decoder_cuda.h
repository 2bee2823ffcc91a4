// nvJPEG. Without it (GM_WITH_NVJPEG undefined) there is only a reason.
#pragma once
#include <memory>
#include <string>

#include "engine/jpeg_decoder.h"

namespace gm {

/// For card `index`; null and a reason where nvJPEG is not to be had.
std::unique_ptr<JpegDecoder> open_nvjpeg(int index, std::string& reason);

}  // namespace gm
