#include "data/download.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <thread>

#include "tests/data_test_util.h"
#include "tests/tools_test_util.h"

namespace gm {
namespace {
using test::TempDir;

/// A web server for one file on a free port of this machine, with the faults that real ones have.
class Server {
 public:
  struct Faults {
    bool ranges = true;     // honours Range
    size_t drop_after = 0;  // closes the connection after so many bytes of a body; 0: never
    int status = 0;         // answers with this error instead
  };
  Server(std::string body, Faults faults) : body_(std::move(body)), faults_(faults) {
    listener_ = ::socket(AF_INET, SOCK_STREAM, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t length = sizeof address;
    EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), length), 0);
    ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &length);
    port_ = ntohs(address.sin_port);
    ::listen(listener_, 8);
    thread_ = std::thread([this] { serve(); });
  }
  ~Server() {
    stop_ = true;
    ::shutdown(listener_, SHUT_RDWR);
    ::close(listener_);
    thread_.join();
  }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port_) + "/file.bin"; }
  int requests() const { return requests_; }
  int64_t sent() const { return sent_; }

 private:
  void serve() {
    for (;;) {
      const int client = ::accept(listener_, nullptr, nullptr);
      if (client < 0 || stop_) return;
      ++requests_;
      answer(client);
      ::close(client);
    }
  }
  void answer(int client) {
    std::string request;
    char buffer[2048];
    while (request.find("\r\n\r\n") == std::string::npos) {
      const ssize_t n = ::recv(client, buffer, sizeof buffer, 0);
      if (n <= 0) return;
      request.append(buffer, static_cast<size_t>(n));
    }
    auto send = [&](const std::string& text) { ::send(client, text.data(), text.size(), MSG_NOSIGNAL); };
    if (faults_.status)
      return send("HTTP/1.1 " + std::to_string(faults_.status) + " no\r\nContent-Length: 0\r\n\r\n");
    size_t start = 0;
    const size_t range = request.find("Range: bytes=");
    const bool partial = faults_.ranges && range != std::string::npos;
    if (partial) start = std::stoul(request.substr(range + 13));
    if (body_.empty()) return send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    if (start >= body_.size()) return send("HTTP/1.1 416 no\r\nContent-Length: 0\r\n\r\n");
    std::string body = body_.substr(start);
    send((partial ? "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes " + std::to_string(start) + "-" +
                        std::to_string(body_.size() - 1) + "/" + std::to_string(body_.size()) + "\r\n"
                  : std::string("HTTP/1.1 200 OK\r\n")) +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n");
    if (faults_.drop_after && body.size() > faults_.drop_after) body.resize(faults_.drop_after);
    send(body);
    sent_ += static_cast<int64_t>(body.size());
  }

  std::string body_;
  Faults faults_;
  int listener_ = -1, port_ = 0;
  std::atomic<bool> stop_{false};
  std::atomic<int> requests_{0};
  std::atomic<int64_t> sent_{0};
  std::thread thread_;
};

std::string content(size_t size) {
  std::string text(size, 0);
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<char>((i * 2654435761u) >> 13);
  return text;
}

class DataDownload : public ::testing::Test {
 protected:
  void SetUp() override {
    if (!can_download()) GTEST_SKIP() << "built without libcurl";
    test::write_text(dir_ / "wanted", body_);
    sum_ = sha256_of_file(dir_ / "wanted");
  }
  std::string fetch(std::vector<std::string> urls) {
    return test::error_of([&] {
      download({"file.bin", sum_, std::move(urls)}, dir_ / "file.bin",
               [&](int64_t done, int64_t total) { last_ = done, total_ = total; }, {});
    });
  }
  bool arrived() const {
    return std::filesystem::exists(dir_ / "file.bin") && test::read_text(dir_ / "file.bin") == body_ &&
           !std::filesystem::exists(dir_ / "file.bin.part");
  }

  TempDir dir_;
  std::string body_ = content(300000), sum_;
  int64_t last_ = 0, total_ = 0;
};

TEST_F(DataDownload, ChecksumIsSha256) {
  test::write_text(dir_ / "abc", "abc");  // FIPS 180-2, appendix B.1
  EXPECT_EQ(sha256_of_file(dir_ / "abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

TEST_F(DataDownload, ArrivesAndIsNotFetchedTwice) {
  Server server(body_, {});
  EXPECT_EQ(fetch({server.url()}), "");
  EXPECT_TRUE(arrived());
  EXPECT_EQ(last_, 300000);
  EXPECT_EQ(total_, 300000);
  EXPECT_EQ(fetch({server.url()}), "");
  EXPECT_EQ(server.requests(), 1);
}

TEST_F(DataDownload, GoesOnAfterABrokenConnection) {
  Server server(body_, {.drop_after = 100000});
  EXPECT_EQ(fetch({server.url()}), "");
  EXPECT_TRUE(arrived());
  EXPECT_GE(server.requests(), 3);
  EXPECT_EQ(server.sent(), 300000) << "no byte was sent twice";
}

TEST_F(DataDownload, GoesOnFromWhatAnEarlierRunLeft) {
  test::write_text(dir_ / "file.bin.part", body_.substr(0, 123456));
  Server server(body_, {});
  EXPECT_EQ(fetch({server.url()}), "");
  EXPECT_TRUE(arrived());
  EXPECT_EQ(server.sent(), 300000 - 123456);
}

TEST_F(DataDownload, StartsAgainWhereRangesAreUnknown) {
  test::write_text(dir_ / "file.bin.part", body_.substr(0, 1000));
  Server server(body_, {.ranges = false});
  EXPECT_EQ(fetch({server.url()}), "");
  EXPECT_TRUE(arrived());
}

TEST_F(DataDownload, APartOfAnotherVersionIsThrownAway) {
  test::write_text(dir_ / "file.bin.part", std::string(5000, 'x'));
  Server server(body_, {});
  EXPECT_EQ(fetch({server.url()}), "");
  EXPECT_TRUE(arrived());
  test::write_text(dir_ / "file.bin.part", std::string(400000, 'x'));  // longer than the file
  std::filesystem::remove(dir_ / "file.bin");
  EXPECT_EQ(fetch({server.url()}), "");
  EXPECT_TRUE(arrived());
}

TEST_F(DataDownload, AWrongChecksumLeavesNothingAndTheNextMirrorIsTried) {
  std::string other = body_;
  other[777] ^= 1;
  Server wrong(other, {}), gone(body_, {.status = 404}), right(body_, {});
  const std::string error = fetch({wrong.url(), gone.url()});
  EXPECT_NE(error.find("wrong checksum"), std::string::npos) << error;
  EXPECT_NE(error.find("404"), std::string::npos) << error;
  EXPECT_EQ(dir_.entries(), 1u) << "only the test's own file";
  EXPECT_EQ(fetch({gone.url(), wrong.url(), right.url()}), "");
  EXPECT_TRUE(arrived());
}

TEST_F(DataDownload, AMirrorThatSendsNothingIsPassedOver) {
  Server empty("", {}), right(body_, {});
  EXPECT_NE(fetch({empty.url()}).find("sent no byte"), std::string::npos);
  EXPECT_EQ(fetch({empty.url(), right.url()}), "");
  EXPECT_TRUE(arrived());
}

TEST_F(DataDownload, AFileWithOtherContentIsNotOverwritten) {
  test::write_text(dir_ / "file.bin", "mine");
  Server server(body_, {});
  EXPECT_NE(fetch({server.url()}).find("another checksum"), std::string::npos);
  EXPECT_EQ(test::read_text(dir_ / "file.bin"), "mine");
  EXPECT_EQ(server.requests(), 0);
}

TEST_F(DataDownload, TheToolKnowsItsSetsAndAsksForConsent) {
  test::expect_failure(test::run("gm_data", {"fetch", "galaxy11"}), 2, {"galaxy10"});
  const auto ran = test::run("gm_data", {"fetch", "galaxyzoo-labels"});
  test::expect_failure(ran, 1, {"consent"});
  EXPECT_NE(ran.out.find("gm_data clean"), std::string::npos);
}

}  // namespace
}  // namespace gm
