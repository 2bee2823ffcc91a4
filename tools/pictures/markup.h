// Text in XML and HTML.
#pragma once
#include <string>

#include "data/image.h"

namespace gm {

/// Safe between tags and inside quoted attributes: & < > " ' become references. What XML does not allow
/// (control characters, bytes that are not UTF-8) becomes U+FFFD.
std::string markup_text(const std::string& text);

/// A picture inside the page: "data:image/png;base64,...".
std::string picture_uri(const Image& image);

}  // namespace gm
