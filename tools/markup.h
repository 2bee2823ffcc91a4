// Text in XML and HTML.
#pragma once
#include <string>

namespace gm {

/// Safe between tags and inside quoted attributes: & < > " ' become references. What XML does not allow
/// (control characters, bytes that are not UTF-8) becomes U+FFFD.
std::string markup_text(const std::string& text);

}  // namespace gm
