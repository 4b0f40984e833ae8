#include "qos/qos_class.h"

#include "gtest/gtest.h"

namespace sluice::qos {
namespace {

TEST(QosClassTest, NamesParseBack) {
  for (int i = 0; i < kQosClassCount; ++i) {
    const auto c = static_cast<QosClass>(i);
    EXPECT_EQ(ParseQosClass(QosClassName(c)), c);
  }
  EXPECT_EQ(QosClassName(QosClass::kBatch), "batch");
}

TEST(QosClassTest, OtherNamesAreRefused) {
  for (const char* name : {"", "Batch", "batch ", "urgent", "0"}) EXPECT_EQ(ParseQosClass(name), std::nullopt) << name;
}

TEST(QosClassTest, NobodyPromotesHimself) {
  EXPECT_EQ(Clamp(QosClass::kSystem, QosClass::kInteractive), QosClass::kInteractive);
  EXPECT_EQ(Clamp(QosClass::kBatch, QosClass::kInteractive), QosClass::kBatch);
}

}  // namespace
}  // namespace sluice::qos
