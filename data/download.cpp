#include "data/download.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "engine/atomic_file.h"
#include "kernels/common/error.h"

#ifdef GM_WITH_CURL
#include <curl/curl.h>
#include <openssl/evp.h>

#include <chrono>
#include <cstdio>
#include <memory>
#include <thread>
#endif

namespace fs = std::filesystem;

namespace gm {

#ifndef GM_WITH_CURL

bool can_download() { return false; }
std::string sha256_of_file(const std::string&) { fail("built without OpenSSL: cannot compute a checksum"); }
void download(const DownloadSource& source, const std::string&, const DownloadProgress&,
              const DownloadNote&) {
  fail("built without libcurl: cannot fetch " + source.file);
}

#else

namespace {

constexpr int kTries = 4;           // of one mirror without a byte of progress
constexpr long kStallSeconds = 30;  // without data: the connection counts as broken
constexpr long kConnectSeconds = 20;

int64_t size_of(const std::string& path) {
  std::error_code none;
  const auto size = fs::file_size(path, none);
  return none ? 0 : static_cast<int64_t>(size);
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

/// One request that appends to a file, or starts it anew when the server does not do ranges.
class Transfer {
 public:
  enum class End { complete, broken, refused };

  Transfer(const std::string& url, const std::string& part, const DownloadProgress& progress)
      : url_(url), part_(part), progress_(progress), start_(size_of(part)) {}

  End run() {
    const std::unique_ptr<CURL, void (*)(CURL*)> curl(curl_easy_init(), curl_easy_cleanup);
    if (!curl) fail("libcurl could not be started");
    handle_ = curl.get();
    char reason[CURL_ERROR_SIZE] = "";
    curl_easy_setopt(handle_, CURLOPT_URL, url_.c_str());
    curl_easy_setopt(handle_, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(handle_, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(handle_, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle_, CURLOPT_ERRORBUFFER, reason);
    curl_easy_setopt(handle_, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(handle_, CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
    curl_easy_setopt(handle_, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(handle_, CURLOPT_LOW_SPEED_TIME, kStallSeconds);
    curl_easy_setopt(handle_, CURLOPT_USERAGENT, "galaxy_morphology");
    if (start_ > 0) curl_easy_setopt(handle_, CURLOPT_RANGE, (std::to_string(start_) + "-").c_str());
    curl_easy_setopt(handle_, CURLOPT_WRITEFUNCTION, &Transfer::receive);
    curl_easy_setopt(handle_, CURLOPT_WRITEDATA, this);
    const CURLcode code = curl_easy_perform(handle_);
    long status = 0;
    curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &status);
    if (file_ && std::fclose(file_) != 0 && write_error_.empty()) write_error_ = std::strerror(errno);
    file_ = nullptr;
    if (!write_error_.empty()) fail(part_ + ": cannot write: " + write_error_);
    if (code == CURLE_OK) return End::complete;
    why_ = *reason ? reason : curl_easy_strerror(code);
    // 416: nothing is left to send; the checksum will tell whether that is the whole file.
    if (status == 416) return End::complete;
    return status >= 400 ? End::refused : End::broken;
  }
  const std::string& why() const { return why_; }

 private:
  static size_t receive(char* bytes, size_t, size_t count, void* self) {
    return static_cast<Transfer*>(self)->append(bytes, count);
  }
  size_t append(const char* bytes, size_t count) {
    if (!file_) open();
    if (!file_ || std::fwrite(bytes, 1, count, file_) != count) {
      write_error_ = std::strerror(errno);
      return 0;
    }
    done_ += static_cast<int64_t>(count);
    if (progress_) progress_(done_, total_);
    return count;
  }
  void open() {
    long status = 0;
    curl_easy_getinfo(handle_, CURLINFO_RESPONSE_CODE, &status);
    const bool resumed = start_ > 0 && status == 206;
    done_ = resumed ? start_ : 0;
    curl_off_t length = -1;
    curl_easy_getinfo(handle_, CURLINFO_CONTENT_LENGTH_DOWNLOAD_T, &length);
    total_ = length > 0 ? done_ + length : 0;
    file_ = std::fopen(part_.c_str(), resumed ? "ab" : "wb");
  }

  std::string url_, part_;
  const DownloadProgress& progress_;
  int64_t start_, done_ = 0, total_ = 0;
  CURL* handle_ = nullptr;
  FILE* file_ = nullptr;
  std::string why_, write_error_;
};

/// "" when the whole of `url` is in `part`, else why not.
std::string fetch_from(const std::string& url, const std::string& part, const DownloadProgress& progress,
                       const DownloadNote& note) {
  std::string why;
  for (int fruitless = 0; fruitless < kTries;) {
    const int64_t before = size_of(part);
    Transfer transfer(url, part, progress);
    const auto end = transfer.run();
    if (end == Transfer::End::complete) return "";
    why = transfer.why();
    if (end == Transfer::End::refused) return why;
    fruitless = size_of(part) > before ? 0 : fruitless + 1;
    if (fruitless == kTries) break;
    if (note) note(url + ": " + why + "; trying again from byte " + std::to_string(size_of(part)));
    std::this_thread::sleep_for(std::chrono::milliseconds(fruitless == 0 ? 100 : 500 << fruitless));
  }
  return why;
}

}  // namespace

bool can_download() { return true; }

std::string sha256_of_file(const std::string& path) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), std::fclose);
  if (!file) fail(path + ": cannot be read: " + std::strerror(errno));
  const std::unique_ptr<EVP_MD_CTX, void (*)(EVP_MD_CTX*)> hash(EVP_MD_CTX_new(), EVP_MD_CTX_free);
  EVP_DigestInit_ex(hash.get(), EVP_sha256(), nullptr);
  std::vector<char> buffer(1 << 20);
  for (size_t n; (n = std::fread(buffer.data(), 1, buffer.size(), file.get())) > 0;)
    EVP_DigestUpdate(hash.get(), buffer.data(), n);
  if (std::ferror(file.get())) fail(path + ": cannot be read: " + std::strerror(errno));
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned length = 0;
  EVP_DigestFinal_ex(hash.get(), digest, &length);
  std::string text;
  for (unsigned i = 0; i < length; ++i) {
    text += "0123456789abcdef"[digest[i] >> 4];
    text += "0123456789abcdef"[digest[i] & 15];
  }
  return text;
}

void download(const DownloadSource& source, const std::string& path, const DownloadProgress& progress,
              const DownloadNote& note) {
  const std::string wanted = lower(source.sha256), part = path + ".part";
  if (fs::exists(path)) {
    if (sha256_of_file(path) == wanted) {
      if (note) note(path + ": is there already, with the right checksum");
      return;
    }
    fail(path + ": is there with another checksum than that of " + source.file + "; move it away first");
  }
  std::string reasons;
  for (const std::string& url : source.urls) {
    std::string why;
    // A part that an older version of the file left behind spoils the sum: then once more from the start.
    for (bool resumed = true; resumed;) {
      resumed = size_of(part) > 0;
      if (resumed && note) note(part + ": going on from byte " + std::to_string(size_of(part)));
      why = fetch_from(url, part, progress, note);
      if (why.empty() && size_of(part) == 0) why = "sent no byte";
      if (!why.empty()) break;
      const std::string sum = sha256_of_file(part);
      if (sum == wanted) return commit_file(part, path);
      std::error_code ignored;
      fs::remove(part, ignored);
      why = "wrong checksum " + sum.substr(0, 12) + "..., expected " + wanted.substr(0, 12) + "...";
    }
    if (note) note(url + ": " + why);
    reasons += (reasons.empty() ? "" : "; ") + url + ": " + why;
  }
  fail(source.file + ": could not be fetched: " + reasons);
}

#endif

}  // namespace gm
