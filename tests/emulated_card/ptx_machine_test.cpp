// The machine on PTX written by hand: results as the PTX ISA gives them, and what no card allows told.
#include "tests/emulated_card/ptx_machine.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

namespace gm::emulated {
namespace {

constexpr const char* kHead = ".version 9.0\n.target sm_80\n.address_size 64\n";

/// A kernel `k` of one parameter, a pointer to the data, which %rd1 holds; %r1 is threadIdx.x.
std::string kernel(const std::string& body, const std::string& before = "") {
  return std::string(kHead) + before +
         ".visible .entry k(\n.param .u64 k_param_0\n)\n{\n.reg .pred %p<9>;\n.reg .b16 %rs<9>;\n.reg .b32 "
         "%r<30>;\n"
         ".reg .f32 %f<30>;\n.reg .b64 %rd<9>;\n.reg .f64 %fd<9>;\n"
         "ld.param.u64 %rd1, [k_param_0];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd2, %r1, 4;\n"
         "add.s64 %rd2, %rd1, %rd2;\n" +
         body + "\nret;\n}\n";
}

template <class T>
void run(const std::string& text, std::vector<T>& data, unsigned threads, unsigned blocks = 1,
         size_t shared = 0) {
  const Module module(text);
  const KernelInfo* k = module.find("k");
  ASSERT_NE(k, nullptr);
  Memory memory;
  memory.add(data.data(), data.size() * sizeof(T));
  const void* pointer = data.data();
  module.run(*k, {blocks}, {threads}, shared, reinterpret_cast<const unsigned char*>(&pointer), memory);
}

/// What running with so many words of data throws; empty when nothing.
std::string fault(const std::string& text, unsigned threads, size_t shared = 0, size_t words = 256) {
  std::vector<uint32_t> data(words);
  try {
    run(text, data, threads, 1, shared);
  } catch (const std::runtime_error& e) {
    return e.what();
  }
  return "";
}
#define EXPECT_SAYS(text, part) EXPECT_NE((text).find(part), std::string::npos) << (text)

/// data[3] = op(data[0], data[1], data[2]) by one thread.
uint32_t compute(const std::string& instruction, uint32_t a, uint32_t b = 0, uint32_t c = 0) {
  std::vector<uint32_t> data{a, b, c, 0};
  run(kernel("ld.global.u32 %r2, [%rd1];\nld.global.u32 %r3, [%rd1+4];\nld.global.u32 %r4, [%rd1+8];\n"
             "ld.global.f32 %f2, [%rd1];\nld.global.f32 %f3, [%rd1+4];\nld.global.f32 %f4, [%rd1+8];\n"
             "mov.b32 %r5, 0;\n" +
             instruction + "\nst.global.u32 [%rd1+12], %r5;"),
      data, 1);
  return data[3];
}
float compute_f(const std::string& instruction, float a, float b = 0, float c = 0) {
  return std::bit_cast<float>(compute(instruction + "\nmov.b32 %r5, %f5;", std::bit_cast<uint32_t>(a),
                                      std::bit_cast<uint32_t>(b), std::bit_cast<uint32_t>(c)));
}

TEST(PtxMachine, Integers) {
  EXPECT_EQ(compute("add.s32 %r5, %r2, %r3;", 0x7fffffff, 1), 0x80000000u);
  EXPECT_EQ(compute("shl.b32 %r5, %r2, %r3;", 1, 32), 0u) << "shifts stop at the width";
  EXPECT_EQ(compute("shr.s32 %r5, %r2, %r3;", 0x80000000, 40), 0xffffffffu);
  EXPECT_EQ(compute("shr.u32 %r5, %r2, %r3;", 0x80000000, 31), 1u);
  EXPECT_EQ(compute("mul.hi.s32 %r5, %r2, %r3;", 0xffffffff, 2), 0xffffffffu);
  EXPECT_EQ(compute("mul.hi.u32 %r5, %r2, %r3;", 0xffffffff, 2), 1u);
  EXPECT_EQ(compute("mad.lo.s32 %r5, %r2, %r3, %r4;", 0xfffffffd, 5, 16), 1u);
  EXPECT_EQ(compute("div.s32 %r5, %r2, %r3;", 0xfffffff9, 2), 0xfffffffdu) << "towards zero";
  EXPECT_EQ(compute("rem.s32 %r5, %r2, %r3;", 0xfffffff9, 2), 0xffffffffu);
  EXPECT_EQ(compute("div.u32 %r5, %r2, %r3;", 0xfffffff9, 2), 0x7ffffffcu);
  EXPECT_EQ(compute("bfi.b32 %r5, %r2, %r3, 8, 4;", 0xab, 0xffffffff), 0xfffffbffu);
  EXPECT_EQ(compute("prmt.b32 %r5, %r2, %r3, 0x5410;", 0x00001111, 0x00002222), 0x22221111u);
  EXPECT_EQ(compute("lop3.b32 %r5, %r2, %r3, %r4, 0x96;", 12, 10, 7), 12u ^ 10u ^ 7u);
  EXPECT_EQ(
      compute("mul.wide.s32 %rd3, %r2, %r3;\nshr.u64 %rd3, %rd3, 32;\ncvt.u32.u64 %r5, %rd3;", 0xffffffff, 3),
      0xffffffffu);
  EXPECT_EQ(compute("cvt.u16.u32 %rs1, %r2;\ncvt.s32.s16 %r5, %rs1;", 0x1ffff), 0xffffffffu);
}

TEST(PtxMachine, FloatingPoint) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(compute_f("fma.rn.f32 %f5, %f2, %f3, %f4;", 1 + 0x1p-12f, 1 + 0x1p-12f, -1), 0x1p-11f + 0x1p-24f);
  EXPECT_EQ(compute_f("mul.f32 %f5, %f2, %f3;\nadd.f32 %f5, %f5, %f4;", 1 + 0x1p-12f, 1 + 0x1p-12f, -1),
            0x1p-11f)
      << "two roundings";
  EXPECT_EQ(compute_f("fma.rm.f32 %f5, %f2, %f3, %f4;", 1, 0x1p-30f, 1), 1.f);
  EXPECT_EQ(compute_f("fma.rm.f32 %f5, %f2, %f3, %f4;", -1, 0x1p-30f, 1), std::nextafter(1.f, 0.f))
      << "downwards";
  EXPECT_EQ(compute_f("max.f32 %f5, %f2, %f3;", kNan, 3), 3.f);
  EXPECT_EQ(compute_f("cvt.sat.f32.f32 %f5, %f2;", 7), 1.f);
  EXPECT_EQ(compute_f("cvt.sat.f32.f32 %f5, %f2;", kNan), 0.f);
  EXPECT_EQ(compute_f("copysign.f32 %f5, %f2, %f3;", -0.f, 3), -3.f);
  const auto bits = [](float v) { return std::bit_cast<uint32_t>(v); };
  EXPECT_EQ(compute("cvt.rzi.s32.f32 %r5, %f2;", bits(-2.9f)), static_cast<uint32_t>(-2));
  EXPECT_EQ(compute("cvt.rni.s32.f32 %r5, %f2;", bits(2.5f)), 2u) << "to even";
  EXPECT_EQ(compute("cvt.rzi.s32.f32 %r5, %f2;", bits(3e9f)), 0x7fffffffu);
  EXPECT_EQ(compute("cvt.rzi.u32.f32 %r5, %f2;", bits(-1)), 0u);
  EXPECT_EQ(compute("cvt.rn.bf16x2.f32 %r5, %f2, %f3;", bits(1 + 0x1p-8f), bits(1 + 0x1p-7f + 0x1p-8f)),
            0x3f803f82u)
      << "the first in the upper half, ties to even";
  for (const auto& [name, want] : std::initializer_list<std::pair<const char*, uint32_t>>{
           {"ne", 0}, {"neu", 1}, {"lt", 0}, {"ltu", 1}, {"num", 0}, {"nan", 1}})
    EXPECT_EQ(compute(fmt::format("setp.{}.f32 %p1, %f2, %f3;\nselp.b32 %r5, 1, 0, %p1;", name), bits(kNan),
                      bits(1)),
              want)
        << name;
}

// Arrays of a thread's own lie in local memory when they are indexed.
TEST(PtxMachine, ThreadsHaveMemoryOfTheirOwn) {
  const auto text = [](const char* offset) {
    return kernel(
        ".local .align 4 .b8 depot[8];\nmov.u64 %rd3, depot;\ncvta.local.u64 %rd4, %rd3;\n"
        "st.local.u32 [%rd3+4], %r1;\nbar.sync 0;\nld.u32 %r2, [%rd4" +
        std::string(offset) + "];\nst.global.u32 [%rd2], %r2;");
  };
  std::vector<uint32_t> data(64);
  run(text("+4"), data, 64);
  for (uint32_t i = 0; i < 64; ++i) EXPECT_EQ(data[i], i);
  EXPECT_SAYS(fault(text("+8"), 64), "local");
}

TEST(PtxMachine, PredicatesAreNumbersAndMayBeTurned) {
  EXPECT_EQ(
      compute("mov.pred %p1, -1;\nmov.pred %p2, 0;\nand.pred %p3, %p1, !%p2;\nselp.b32 %r5, %r2, %r3, %p3;",
              4, 5),
      4u);
  EXPECT_EQ(
      compute("setp.eq.s32 %p3, %r2, %r3;\nsetp.lt.and.s32 %p1|%p2, %r2, %r3, %p3;\n@!%p1 mov.u32 %r5, 9;", 4,
              5),
      9u);
  EXPECT_EQ(
      compute("setp.eq.s32 %p3, %r2, %r3;\nsetp.lt.and.s32 %p1|%p2, %r2, %r3, !%p3;\n@%p1 mov.u32 %r5, 9;", 4,
              5),
      9u);
}

// As the compiler writes inline assembly: registers of a block are its own. Also with its brace at a line's
// start.
TEST(PtxMachine, BlocksInBracesHaveRegistersOfTheirOwn) {
  EXPECT_EQ(compute("mov.u32 %r7, 7;\nsetp.eq.u32 %p1, %r2, 1;\n{\n.reg .pred %p1;\n.reg .b32 %r7;\n"
                    "mov.u32 %r7, 9;\nsetp.eq.u32 %p1, %r2, 2;\nselp.b32 %r6, %r7, 0, %p1;\n}\n"
                    "selp.b32 %r5, %r7, 3, %p1;\nadd.s32 %r5, %r5, %r6;",
                    1),
            7u);
}

// Lane i goes round i times; behind the loop all are together again.
TEST(PtxMachine, LanesThatPartMeetAgain) {
  std::vector<uint32_t> data(64);
  run(kernel("mov.u32 %r2, 0;\nmov.u32 %r3, 0;\n"
             "$L1:\nsetp.ge.u32 %p1, %r2, %r1;\n@%p1 bra $L2;\nadd.s32 %r3, %r3, %r2;\nadd.s32 %r2, %r2, "
             "1;\nbra.uni $L1;\n"
             "$L2:\nshfl.sync.bfly.b32 %r4|%p2, %r3, 1, 31, -1;\nst.global.u32 [%rd2], %r4;"),
      data, 64);
  for (uint32_t i = 0; i < 64; ++i) EXPECT_EQ(data[i], (i ^ 1) * ((i ^ 1) - 1) / 2) << i;
}

TEST(PtxMachine, BlocksCountThemselves) {
  std::vector<uint32_t> data(3);
  run(kernel("atom.global.inc.u32 %r2, [%rd1], 6;\nsetp.eq.u32 %p1, %r2, 6;\n@%p1 atom.global.add.u32 %r3, "
             "[%rd1+4], 1;\n"
             "mov.u32 %r4, %ctaid.x;\natom.global.add.u32 %r5, [%rd1+8], %r4;"),
      data, 1, 14);
  EXPECT_EQ(data, (std::vector<uint32_t>{0, 2, 91}));
}

// Each block leaves a value; the last to draw a ticket adds all.
TEST(PtxMachine, BlocksThatAddWhatOthersHaveWritten) {
  const auto text = [](const std::string& fence, const std::string& load) {
    return kernel(
        "mov.u32 %r2, %ctaid.x;\nmul.wide.u32 %rd3, %r2, 4;\nadd.s64 %rd3, %rd1, %rd3;\nadd.s32 %r3, %r2, "
        "1;\n"
        "st.global.u32 [%rd3+8], %r3;\n" +
        fence + "atom.global.inc.u32 %r4, [%rd1], 2;\nsetp.ne.u32 %p1, %r4, 2;\n@%p1 bra $L1;\n" + fence +
        load + " %r5, [%rd1+8];\n" + load + " %r6, [%rd1+12];\n" + load +
        " %r7, [%rd1+16];\nadd.s32 %r5, %r5, %r6;\nadd.s32 %r5, %r5, %r7;\nst.global.u32 [%rd1+4], "
        "%r5;\n$L1:");
  };
  std::vector<uint32_t> data(5);
  run(text("membar.gl;\n", "ld.global.u32"), data, 1, 3);
  EXPECT_EQ(data, (std::vector<uint32_t>{0, 6, 1, 2, 3}));
  const auto wrong = [&](const char* fence, const char* load) -> std::string {
    try {
      run(text(fence, load), data, 1, 3);
    } catch (const std::runtime_error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_SAYS(wrong("", "ld.global.u32"), "race");
  EXPECT_SAYS(wrong("fence.acq_rel.cta;\n", "ld.global.u32"), "race");
  EXPECT_SAYS(wrong("fence.acq_rel.gpu;\n", "ld.global.nc.u32"), "read-only");
}

const std::string kShared =
    ".shared .align 16 .b8 s[4096];\nmov.u32 %r6, s;\nshl.b32 %r7, %r1, 2;\nadd.s32 %r8, %r6, %r7;\n";

// Each thread reads what the last one of the block has written.
std::string reversed(const std::string& between, unsigned last) {
  return kernel(kShared + "st.shared.u32 [%r8], %r1;\n" + between +
                fmt::format("sub.s32 %r9, {}, %r7;\nadd.s32 %r9, %r6, %r9;\nld.shared.u32 %r10, [%r9];\n"
                            "st.global.u32 [%rd2], %r10;",
                            4 * last));
}
TEST(PtxMachine, Barriers) {
  std::vector<uint32_t> data(96);
  run(reversed("bar.sync 0;\n", 95), data, 96);
  for (uint32_t i = 0; i < 96; ++i) EXPECT_EQ(data[i], 95 - i);
  EXPECT_SAYS(fault(reversed("", 95), 96), "race");
  EXPECT_SAYS(
      fault(
          kernel(
              "setp.lt.u32 %p1, %r1, 7;\n@%p1 bra $L1;\nbar.sync 0;\nbra.uni $L2;\n$L1:\nbar.sync 0;\n$L2:"),
          32),
      "different barriers");
  EXPECT_SAYS(
      fault(kernel(
                "setp.lt.u32 %p1, %r1, 7;\n@%p1 bra $L1;\nshfl.sync.bfly.b32 %r4|%p2, %r3, 1, 31, -1;\n$L1:"),
            32),
      "do not come");
  std::vector<uint32_t> any(64);
  run(kernel("setp.eq.u32 %p1, %r1, 40;\nbar.red.or.pred %p2, 0, %p1;\nselp.b32 %r2, 1, 0, "
             "%p2;\nst.global.u32 [%rd2], %r2;"),
      any, 64);
  EXPECT_EQ(std::accumulate(any.begin(), any.end(), 0u), 64u);
}

TEST(PtxMachine, MemoryIsChecked) {
  EXPECT_EQ(fault(kernel("ld.global.u32 %r2, [%rd1+1020];"), 1), "");
  EXPECT_SAYS(fault(kernel("ld.global.u32 %r2, [%rd1+1024];"), 1), "read out of bounds of 4 bytes at global");
  EXPECT_SAYS(fault(kernel("st.global.v4.u32 [%rd1+1012], {%r1, %r1, %r1, %r1};"), 1), "misaligned");
  EXPECT_SAYS(fault(kernel("st.global.u32 [%rd1+-4], %r1;"), 1), "write out of bounds");
  EXPECT_SAYS(fault(kernel(kShared + "ld.shared.u32 %r2, [%r6+4096];"), 1), "shared");
  EXPECT_SAYS(
      fault(kernel("mov.u32 %r6, d;\nld.shared.u32 %r2, [%r6+64];", ".extern .shared .align 16 .b8 d[];\n"),
            1, 64),
      "shared");
  EXPECT_EQ(
      fault(kernel("mov.u32 %r6, d;\nld.shared.u32 %r2, [%r6+60];", ".extern .shared .align 16 .b8 d[];\n"),
            1, 64),
      "");
  EXPECT_SAYS(fault(kernel("frobnicate.u32 %r2, %r1;"), 1), "lacks; frobnicate");
}

// Two groups under way; what has not been waited for has not arrived.
TEST(PtxMachine, AsynchronousCopies) {
  const auto text = [](const char* wait) {
    return kernel(
        kShared +
        "cp.async.cg.shared.global [%r6], [%rd1], 16, 16;\ncp.async.commit_group;\n"
        "cp.async.cg.shared.global [%r6+16], [%rd1], 16, 8;\ncp.async.commit_group;\n" +
        std::string(wait) +
        "ld.shared.u32 %r9, [%r6+4];\nld.shared.u32 %r10, [%r6+20];\nld.shared.u32 %r11, [%r6+24];\n"
        "st.global.u32 [%rd1+16], %r9;\nst.global.u32 [%rd1+20], %r10;\nst.global.u32 [%rd1+24], %r11;");
  };
  const auto got = [&](const char* wait) {
    std::vector<uint32_t> data{1, 2, 3, 4, 0, 0, 0};
    run(text(wait), data, 1);
    return std::vector<uint32_t>(data.begin() + 4, data.end());
  };
  constexpr uint32_t kNothing = 0xffffffff;
  EXPECT_EQ(got("cp.async.wait_all;\n"), (std::vector<uint32_t>{2, 2, 0}))
      << "bytes that are not copied are zeros";
  EXPECT_EQ(got("cp.async.wait_group 0;\n"), (std::vector<uint32_t>{2, 2, 0}));
  EXPECT_EQ(got("cp.async.wait_group 1;\n"), (std::vector<uint32_t>{2, kNothing, kNothing}));
  EXPECT_EQ(got("cp.async.wait_group 2;\n"), (std::vector<uint32_t>{kNothing, kNothing, kNothing}));
  const auto at_the_end = [](const char* bytes) {  // of a chunk of which memory has the first 8 bytes
    return fault(kernel(kShared + "cp.async.cg.shared.global [%r6], [%rd1+16], 16, " + bytes +
                        ";\ncp.async.wait_all;\n"),
                 1, 0, 6);
  };
  EXPECT_EQ(at_the_end("8"), "");
  EXPECT_SAYS(at_the_end("12"), "read out of bounds");
}

// Rows of 8 bf16 in shared memory, matrix after matrix; A 16 x 16 as four of them, B 16 x 8 transposed as it
// is loaded.
TEST(PtxMachine, MatricesAsTheTensorCoresHaveThem) {
  const auto bf16 = [](float v) { return static_cast<uint16_t>(std::bit_cast<uint32_t>(v) >> 16); };
  const auto a = [](unsigned i, unsigned k) {
    return static_cast<float>(static_cast<int>(i * 5 + k * 3) % 11 - 5);
  };
  const auto b = [](unsigned k, unsigned j) {
    return static_cast<float>(static_cast<int>(k * 7 + j * 2) % 13 - 6);
  };
  std::vector<uint16_t> halves(8 * 64 +
                               16 * 8 * 2);  // six matrices, room for two more, 16 x 8 results in f32
  for (unsigned i = 0; i < 16; ++i)
    for (unsigned k = 0; k < 16; ++k) halves[(i / 8 + k / 8 * 2) * 64 + i % 8 * 8 + k % 8] = bf16(a(i, k));
  for (unsigned k = 0; k < 16; ++k)
    for (unsigned j = 0; j < 8; ++j) halves[(4 + k / 8) * 64 + k % 8 * 8 + j] = bf16(b(k, j));
  run(kernel(
          kShared +
          "shl.b32 %r2, %r1, 4;\ncvt.u64.u32 %rd3, %r2;\nadd.s64 %rd3, %rd1, %rd3;\nadd.s32 %r3, %r6, %r2;\n"
          "ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%rd3];\nst.shared.v4.u32 [%r3], {%r10, %r11, %r12, "
          "%r13};\n"
          "ld.global.v4.u32 {%r10, %r11, %r12, %r13}, [%rd3+512];\nst.shared.v4.u32 [%r3+512], {%r10, %r11, "
          "%r12, %r13};\n"
          "bar.sync 0;\n"
          "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r10,%r11,%r12,%r13}, [%r3];\n"
          "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%r14,%r15,%r16,%r17}, [%r3+512];\n"
          "mov.f32 %f1, 0f3F000000;\n"
          "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f2,%f3,%f4,%f5}, {%r10,%r11,%r12,%r13}, "
          "{%r14,%r15}, "
          "{%f1,%f1,%f1,%f1};\n"
          "shr.u32 %r18, %r1, 2;\nand.b32 %r19, %r1, 3;\nshl.b32 %r18, %r18, 5;\nshl.b32 %r19, %r19, 3;\n"
          "add.s32 %r18, %r18, %r19;\ncvt.u64.u32 %rd4, %r18;\nadd.s64 %rd4, %rd1, %rd4;\n"
          "st.global.v2.f32 [%rd4+1024], {%f2, %f3};\nst.global.v2.f32 [%rd4+1280], {%f4, %f5};"),
      halves, 32);
  for (unsigned i = 0; i < 16; ++i)
    for (unsigned j = 0; j < 8; ++j) {
      float want = 0.5f, got = 0;
      for (unsigned k = 0; k < 16; ++k) want += a(i, k) * b(k, j);
      std::memcpy(&got, &halves[512 + 2 * (i * 8 + j)], 4);
      EXPECT_EQ(got, want) << i << ", " << j;
    }
}

}  // namespace
}  // namespace gm::emulated
