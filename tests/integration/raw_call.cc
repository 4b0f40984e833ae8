#include "tests/integration/raw_call.h"

#include <grpcpp/generic/generic_stub.h>

#include <chrono>

#include "google/protobuf/message.h"
#include "google/protobuf/util/json_util.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"

namespace sluice::test {
namespace {

using google::protobuf::DescriptorPool;

constexpr char kReflection[] = "grpc.reflection.v1alpha.ServerReflection";

grpc::ByteBuffer Bytes(const std::string& message) {
  const grpc::Slice slice(message);
  return {&slice, 1};
}

std::string Text(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  buffer.Dump(&slices);
  std::string text;
  for (const grpc::Slice& slice : slices) text.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return text;
}

// A message of gRPC's own reflection API: its descriptors are in gRPC's library, its header is not in the package.
std::unique_ptr<google::protobuf::Message> ReflectionMessage(const std::string& name) {
  const auto* type = DescriptorPool::generated_pool()->FindMessageTypeByName("grpc.reflection.v1alpha." + name);
  if (type == nullptr) return nullptr;
  const auto* prototype = google::protobuf::MessageFactory::generated_factory()->GetPrototype(type);
  return std::unique_ptr<google::protobuf::Message>(prototype->New());
}

}  // namespace

RawReply Call(const std::shared_ptr<grpc::Channel>& channel, const RawCall& call) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::minutes(2));
  for (const auto& [name, value] : call.headers) context.AddMetadata(name, value);
  grpc::CompletionQueue queue;
  const auto done = [&queue] {  // one operation at a time
    void* tag = nullptr;
    bool ok = false;
    return queue.Next(&tag, &ok) && ok;
  };
  const auto stream = stub.PrepareCall(&context, call.path, &queue);
  stream->StartCall(nullptr);
  bool open = done();
  for (size_t i = 0; open && i < call.messages.size(); ++i) {
    stream->Write(Bytes(call.messages[i]), nullptr);
    open = done();
  }
  if (open && call.half_close) {
    stream->WritesDone(nullptr);
    done();
  }
  RawReply reply;
  for (grpc::ByteBuffer answer; stream->Read(&answer, nullptr), done();) {
    reply.answers.push_back(Text(answer));
    if (static_cast<int>(reply.answers.size()) == call.stop_after) context.TryCancel();
  }
  stream->Finish(&reply.status, nullptr);
  done();
  return reply;
}

std::vector<std::string> ReflectedServices(const std::shared_ptr<grpc::Channel>& channel) {
  const auto request = ReflectionMessage("ServerReflectionRequest");
  const auto response = ReflectionMessage("ServerReflectionResponse");
  if (request == nullptr || response == nullptr) {
    ADD_FAILURE() << "gRPC's reflection library is not linked in";
    return {};
  }
  EXPECT_TRUE(google::protobuf::util::JsonStringToMessage(R"({"list_services": ""})", request.get()).ok());
  const RawReply reply = Call(channel, {.path = std::string("/") + kReflection + "/ServerReflectionInfo",
                                        .messages = {request->SerializeAsString()}});
  EXPECT_TRUE(reply.status.ok()) << reply.status.error_message();
  EXPECT_EQ(reply.answers.size(), 1U);
  if (reply.answers.empty() || !response->ParseFromString(reply.answers[0])) return {};
  std::string json;
  EXPECT_TRUE(google::protobuf::util::MessageToJsonString(*response, &json).ok());
  std::vector<std::string> names;
  const nlohmann::json parsed = nlohmann::json::parse(json);
  for (const auto& service : parsed["listServicesResponse"]["service"]) names.push_back(service["name"]);
  return names;
}

std::vector<const google::protobuf::MethodDescriptor*> ReflectedMethods(const std::shared_ptr<grpc::Channel>& channel) {
  std::vector<const google::protobuf::MethodDescriptor*> methods;
  for (const std::string& name : ReflectedServices(channel)) {
    const auto* service = DescriptorPool::generated_pool()->FindServiceByName(name);
    EXPECT_NE(service, nullptr) << name;
    for (int i = 0; service != nullptr && i < service->method_count(); ++i) methods.push_back(service->method(i));
  }
  return methods;
}

std::string PathOf(const google::protobuf::MethodDescriptor& method) {
  return "/" + method.service()->full_name() + "/" + method.name();
}

std::string ReasonIn(const grpc::Status& status) {
  google::rpc::Status details;
  details.ParseFromString(status.error_details());
  google::rpc::ErrorInfo info;
  for (const auto& any : details.details()) {
    if (any.UnpackTo(&info)) return info.reason();
  }
  return "";
}

}  // namespace sluice::test
