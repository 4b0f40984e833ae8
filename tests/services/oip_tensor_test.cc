#include "services/grpc/oip_tensor.h"

#include <limits>
#include <random>

#include "tests/services/oip_messages.h"
#include "tests/support/status_matchers.h"

namespace sluice::services {
namespace {

using inference::ModelInferResponse;
using test::IsOk;
using test::MakeTensor;
using test::Raw;
using test::RawText;
using test::StatusIs;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr int64_t kHuge = std::numeric_limits<int64_t>::max();
const auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::StatusOr<std::vector<OipValue>> FromRaw(const test::InputTensor& tensor, const std::string& raw, int max = 1) {
  return DecodeTensor(tensor, &raw, max);
}

TEST(OipTensor, RawBytesElementsKeepEveryByte) {
  const std::string binary("a\0\xff", 3);
  const auto values = FromRaw(MakeTensor("stop", "BYTES", {3}), RawText("one") + RawText("") + RawText(binary), 16);
  ASSERT_THAT(values, IsOk());
  EXPECT_THAT(*values, ElementsAre(OipValue("one"), OipValue(""), OipValue(binary)));
}

TEST(OipTensor, EveryTruncationOfRawBytesIsRefused) {
  const std::string whole = RawText("one") + RawText("two");
  const auto tensor = MakeTensor("stop", "BYTES", {1, 2});
  for (size_t size = 0; size < whole.size(); ++size) {
    EXPECT_THAT(FromRaw(tensor, whole.substr(0, size), 16), StatusIs(kInvalid)) << size << " bytes";
  }
  ASSERT_THAT(FromRaw(tensor, whole, 16), IsOk());
  EXPECT_THAT(FromRaw(tensor, whole + "x", 16), StatusIs(kInvalid, HasSubstr("1 raw bytes after the 2 element(s)")));
}

TEST(OipTensor, LengthsBeyondTheContentsAreRefused) {
  const auto tensor = MakeTensor("text_input", "BYTES", {1});
  for (const uint32_t length : {4U, 5U, 0x7FFFFFFFU, 0x80000000U, 0xFFFFFFFCU, 0xFFFFFFFFU}) {
    EXPECT_THAT(FromRaw(tensor, Raw(length) + "abc"), StatusIs(kInvalid, HasSubstr("3 are left of 7 raw bytes")));
  }
  EXPECT_THAT(FromRaw(tensor, "ab"), StatusIs(kInvalid, HasSubstr("its length alone takes 4")));
}

TEST(OipTensor, RawNumbersWantTheirExactSize) {
  EXPECT_THAT(*FromRaw(MakeTensor("t", "INT32", {1}), Raw(int32_t{-5})), ElementsAre(OipValue(int64_t{-5})));
  EXPECT_THAT(*FromRaw(MakeTensor("t", "UINT64", {1, 1}), Raw(~uint64_t{0})), ElementsAre(OipValue(~uint64_t{0})));
  EXPECT_THAT(*FromRaw(MakeTensor("t", "FP32", {1}), Raw(0.5F)), ElementsAre(OipValue(0.5)));
  EXPECT_THAT(*FromRaw(MakeTensor("t", "BOOL", {1}), Raw(uint8_t{1})), ElementsAre(OipValue(true)));
  EXPECT_THAT(FromRaw(MakeTensor("t", "INT32", {1}), "abc"), StatusIs(kInvalid, "3 raw bytes; the shape wants 4"));
  EXPECT_THAT(FromRaw(MakeTensor("t", "FP32", {1}), "abcde"), StatusIs(kInvalid, "5 raw bytes; the shape wants 4"));
  EXPECT_THAT(FromRaw(MakeTensor("t", "UINT64", {1}), ""), StatusIs(kInvalid, "0 raw bytes; the shape wants 8"));
  EXPECT_THAT(FromRaw(MakeTensor("t", "BOOL", {1}), "\2"), StatusIs(kInvalid, HasSubstr("a BOOL is 0 or 1")));
}

TEST(OipTensor, ShapesOtherThanOneElementAreRefusedForScalars) {
  const std::string raw = RawText("x");
  for (const auto& shape : std::vector<std::vector<int64_t>>{{},
                                                             {0},
                                                             {-1},
                                                             {2},
                                                             {1, 0},
                                                             {1, -1},
                                                             {2, 1},
                                                             {-1, -1},
                                                             {1, 1, 1},
                                                             {kHuge},
                                                             {1, kHuge},
                                                             {std::numeric_limits<int64_t>::min()},
                                                             {int64_t{1} << 32, int64_t{1} << 32},
                                                             {kHuge, kHuge}}) {
    auto tensor = MakeTensor("text_input", "BYTES", {});
    for (const int64_t dimension : shape) tensor.add_shape(dimension);
    EXPECT_THAT(FromRaw(tensor, raw), StatusIs(kInvalid, HasSubstr("wants [1] or [1, 1]"))) << tensor.DebugString();
    EXPECT_THAT(DecodeTensor(tensor, nullptr, 1), StatusIs(kInvalid)) << tensor.DebugString();
  }
  EXPECT_THAT(FromRaw(MakeTensor("t", "BYTES", {-3}), raw), StatusIs(kInvalid, HasSubstr("shape [-3]")));
}

TEST(OipTensor, ListsAreBoundedBeforeAnythingIsAllocated) {
  std::string raw;
  for (int i = 0; i < 16; ++i) raw += RawText("s");
  EXPECT_THAT(FromRaw(MakeTensor("stop", "BYTES", {16}), raw, 16), IsOk());
  EXPECT_THAT(FromRaw(MakeTensor("stop", "BYTES", {17}), raw + RawText("s"), 16),
              StatusIs(kInvalid, HasSubstr("shape [17]; wants [n] or [1, n] with n from 1 to 16")));
  EXPECT_THAT(FromRaw(MakeTensor("stop", "BYTES", {kHuge}), raw, 16), StatusIs(kInvalid));
  EXPECT_THAT(FromRaw(MakeTensor("stop", "BYTES", {15}), raw, 16), StatusIs(kInvalid, HasSubstr("5 raw bytes after")));
}

TEST(OipTensor, TypedContentsComeFromTheFieldOfTheDatatypeOnly) {
  auto tensor = MakeTensor("max_tokens", "INT32", {1});
  EXPECT_THAT(DecodeTensor(tensor, nullptr, 1), StatusIs(kInvalid, HasSubstr("0 element(s) in contents.int_contents")));
  tensor.mutable_contents()->add_int64_contents(5);
  EXPECT_THAT(DecodeTensor(tensor, nullptr, 1),
              StatusIs(kInvalid, "0 element(s) in contents.int_contents of 1 in all; the shape wants 1 there"));
  tensor.mutable_contents()->add_int_contents(5);
  EXPECT_THAT(DecodeTensor(tensor, nullptr, 1), StatusIs(kInvalid, HasSubstr("of 2 in all")));
  tensor.mutable_contents()->clear_int64_contents();
  EXPECT_THAT(*DecodeTensor(tensor, nullptr, 1), ElementsAre(OipValue(int64_t{5})));
  tensor.mutable_contents()->add_int_contents(6);
  EXPECT_THAT(DecodeTensor(tensor, nullptr, 1), StatusIs(kInvalid));
}

TEST(OipTensor, TypedContentsOfEveryDatatype) {
  auto text = MakeTensor("t", "BYTES", {2});
  text.mutable_contents()->add_bytes_contents("a");
  text.mutable_contents()->add_bytes_contents("");
  EXPECT_THAT(*DecodeTensor(text, nullptr, 2), ElementsAre(OipValue("a"), OipValue("")));
  auto flag = MakeTensor("t", "BOOL", {1});
  flag.mutable_contents()->add_bool_contents(true);
  EXPECT_THAT(*DecodeTensor(flag, nullptr, 1), ElementsAre(OipValue(true)));
  auto seed = MakeTensor("t", "UINT64", {1});
  seed.mutable_contents()->add_uint64_contents(~uint64_t{0});
  EXPECT_THAT(*DecodeTensor(seed, nullptr, 1), ElementsAre(OipValue(~uint64_t{0})));
  auto real = MakeTensor("t", "FP32", {1});
  real.mutable_contents()->add_fp32_contents(0.25F);
  EXPECT_THAT(*DecodeTensor(real, nullptr, 1), ElementsAre(OipValue(0.25)));
}

TEST(OipTensor, RandomRawContentsAreDecodedWholeOrRefused) {
  const uint32_t seed = 20240917;
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  int decoded = 0;
  for (int round = 0; round < 20000; ++round) {
    const int count = 1 + static_cast<int>(random() % 3);
    std::string raw;
    for (int i = 0; i < count; ++i) raw += RawText(std::string(random() % 6, 'x'));
    for (uint32_t flips = random() % 3; flips > 0; --flips) raw[random() % raw.size()] = static_cast<char>(random());
    if (random() % 4 == 0) raw.resize(random() % (raw.size() + 1));
    const auto values = FromRaw(MakeTensor("stop", "BYTES", {count}), raw, 16);
    if (!values.ok()) continue;
    ++decoded;
    size_t bytes = 0;
    for (const OipValue& value : *values) bytes += 4 + std::get<std::string>(value).size();
    ASSERT_EQ(values->size(), static_cast<size_t>(count));
    ASSERT_EQ(bytes, raw.size());
  }
  EXPECT_GT(decoded, 1000);
}

TEST(OipTensor, OutputsAreRawInTheirOrder) {
  ModelInferResponse response;
  AddBytesOutput("text_output", "h\xc3\xa9", response);
  AddInt32Output("token_ids", {1, -2}, response);
  AddInt32Output("none", {}, response);
  AddFp32Output("embedding", {0.5F}, response);
  ASSERT_EQ(response.outputs_size(), 4);
  ASSERT_EQ(response.raw_output_contents_size(), 4);
  EXPECT_EQ(response.outputs(0).datatype(), "BYTES");
  EXPECT_THAT(response.outputs(0).shape(), ElementsAre(1));
  EXPECT_EQ(response.raw_output_contents(0), RawText("h\xc3\xa9"));
  EXPECT_THAT(response.outputs(1).shape(), ElementsAre(2));
  EXPECT_EQ(response.raw_output_contents(1), Raw(int32_t{1}) + Raw(int32_t{-2}));
  EXPECT_THAT(response.outputs(2).shape(), ElementsAre(0));
  EXPECT_EQ(response.raw_output_contents(2), "");
  EXPECT_EQ(response.outputs(3).datatype(), "FP32");
  EXPECT_EQ(response.raw_output_contents(3), Raw(0.5F));
}

}  // namespace
}  // namespace sluice::services
