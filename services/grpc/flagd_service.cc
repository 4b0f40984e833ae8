#include "services/grpc/flagd_service.h"

#include <grpcpp/impl/codegen/proto_utils.h>
#include <grpcpp/impl/codegen/server_callback_handlers.h>
#include <grpcpp/impl/rpc_service_method.h>
#include <grpcpp/impl/service_type.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <functional>
#include <string>
#include <string_view>
#include <utility>

#include "base/mutex.h"
#include "base/status.h"
#include "flagd/evaluation/v1/evaluation.pb.h"
#include "flagd/evaluation/v2/evaluation.pb.h"
#include "services/flag_answers.h"
#include "services/grpc/status_mapping.h"
#include "services/grpc/struct_codec.h"

namespace sluice::services {
namespace {

using grpc::CallbackServerContext;
using grpc::ServerUnaryReactor;
using nlohmann::json;

struct V1 {
  static constexpr std::string_view kName = "flagd.evaluation.v1.Service";
  static constexpr bool kValueCanBeAbsent = false;
  using BooleanRequest = ::flagd::evaluation::v1::ResolveBooleanRequest;
  using BooleanResponse = ::flagd::evaluation::v1::ResolveBooleanResponse;
  using StringRequest = ::flagd::evaluation::v1::ResolveStringRequest;
  using StringResponse = ::flagd::evaluation::v1::ResolveStringResponse;
  using FloatRequest = ::flagd::evaluation::v1::ResolveFloatRequest;
  using FloatResponse = ::flagd::evaluation::v1::ResolveFloatResponse;
  using IntRequest = ::flagd::evaluation::v1::ResolveIntRequest;
  using IntResponse = ::flagd::evaluation::v1::ResolveIntResponse;
  using ObjectRequest = ::flagd::evaluation::v1::ResolveObjectRequest;
  using ObjectResponse = ::flagd::evaluation::v1::ResolveObjectResponse;
  using EventRequest = ::flagd::evaluation::v1::EventStreamRequest;
  using Event = ::flagd::evaluation::v1::EventStreamResponse;
};

struct V2 {
  static constexpr std::string_view kName = "flagd.evaluation.v2.Service";
  static constexpr bool kValueCanBeAbsent = true;
  using BooleanRequest = ::flagd::evaluation::v2::ResolveBooleanRequest;
  using BooleanResponse = ::flagd::evaluation::v2::ResolveBooleanResponse;
  using StringRequest = ::flagd::evaluation::v2::ResolveStringRequest;
  using StringResponse = ::flagd::evaluation::v2::ResolveStringResponse;
  using FloatRequest = ::flagd::evaluation::v2::ResolveFloatRequest;
  using FloatResponse = ::flagd::evaluation::v2::ResolveFloatResponse;
  using IntRequest = ::flagd::evaluation::v2::ResolveIntRequest;
  using IntResponse = ::flagd::evaluation::v2::ResolveIntResponse;
  using ObjectRequest = ::flagd::evaluation::v2::ResolveObjectRequest;
  using ObjectResponse = ::flagd::evaluation::v2::ResolveObjectResponse;
  using EventRequest = ::flagd::evaluation::v2::EventStreamRequest;
  using Event = ::flagd::evaluation::v2::EventStreamResponse;
};

absl::Status ErrorStatus(FlagError error, std::string_view message) {
  return MakeError(FindReason(FlagErrorCode(error)).value_or(Reason::kGeneral), message);
}

// Each writes a value of its type, or says that the flag has another one.
template <typename Response>
bool SetBoolean(const json& value, Response& response) {
  if (value.is_boolean()) response.set_value(value.get<bool>());
  return value.is_boolean();
}
template <typename Response>
bool SetString(const json& value, Response& response) {
  if (const auto* text = value.get_ptr<const std::string*>()) response.set_value(*text);
  return value.is_string();
}
template <typename Response>
bool SetFloat(const json& value, Response& response) {
  if (value.is_number()) response.set_value(value.get<double>());
  return value.is_number();
}
// Towards zero, as flagd does; what a 64-bit integer cannot hold is another type.
template <typename Response>
bool SetInt(const json& value, Response& response) {
  constexpr double kTwoTo63 = 9223372036854775808.0;
  if (!value.is_number() || !(value.get<double>() >= -kTwoTo63 && value.get<double>() < kTwoTo63)) return false;
  response.set_value(value.is_number_integer() ? value.get<int64_t>() : static_cast<int64_t>(value.get<double>()));
  return true;
}
template <typename Response>
bool SetObject(const json& value, Response& response) {
  if (value.is_object()) JsonToStruct(value, *response.mutable_value());
  return value.is_object();
}

template <typename AnyFlag>
void EncodeAny(const FlagAnswer& answer, AnyFlag& out) {
  out.set_reason(answer.reason);
  out.set_variant(answer.variant);
  if (answer.value.is_boolean()) {
    out.set_bool_value(answer.value.get<bool>());
  } else if (const auto* text = answer.value.get_ptr<const std::string*>()) {
    out.set_string_value(*text);
  } else if (answer.value.is_number()) {
    out.set_double_value(answer.value.get<double>());
  } else if (answer.value.is_object()) {
    JsonToStruct(answer.value, *out.mutable_object_value());
  }
  JsonToStruct(answer.metadata, *out.mutable_metadata());
}

// One EventStream. gRPC calls On* from its threads, FlagEvents calls Notify from others; what they share is under one
// lock, never held over StartWrite or Finish. Kept by itself until OnDone. It is no open call of the guard: a drain
// ends it by provider_shutdown instead of waiting for it.
template <typename Event>
class EventStream final : public grpc::ServerWriteReactor<Event>,
                          public FlagEvents::Listener,
                          public std::enable_shared_from_this<EventStream<Event>> {
 public:
  static EventStream* Open(FlagEvents& events, const CallGuard& guard, CallbackServerContext& context) {
    auto stream = std::make_shared<EventStream>(events);
    stream->self_ = stream;
    const absl::StatusOr<CallContext> call = guard.Open(context);
    const absl::Status status = call.ok() ? events.Add(stream) : call.status();
    if (status.ok()) {
      stream->Notify({.ready = true});
    } else {
      stream->End(ToGrpcStatus(status, context, call.ok() ? call->request_id : ""));
    }
    return stream.get();
  }

  explicit EventStream(FlagEvents& events) : events_(events) {}

  void Notify(const FlagNews& news) override ABSL_LOCKS_EXCLUDED(mu_) {
    {
      MutexLock lock(mu_);
      pending_.ready |= news.ready;
      pending_.keep_alive |= news.keep_alive;
      pending_.shutdown |= news.shutdown;
      for (const auto& [key, type] : news.changes) pending_.changes[key] = type;
    }
    WriteNext();
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(mu_);
      writing_ = false;
    }
    if (ok) return WriteNext();
    End(grpc::Status::CANCELLED);
  }
  void OnCancel() override { End(grpc::Status::CANCELLED); }
  void OnDone() override {
    const std::shared_ptr<EventStream> last_use = std::move(self_);
    events_.Remove(*this);
  }

 private:
  void WriteNext() ABSL_LOCKS_EXCLUDED(mu_) {
    bool over = false;
    {
      MutexLock lock(mu_);
      if (writing_ || ended_) return;
      event_.Clear();
      over = said_goodbye_;
      if (!over && !TakeNext()) return;
      writing_ = !over;
    }
    if (over) return End(grpc::Status::OK);
    this->StartWrite(&event_);
  }

  // The next event into event_; false when there is none.
  bool TakeNext() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (std::exchange(pending_.ready, false)) {
      event_.set_type("provider_ready");
    } else if (!pending_.changes.empty()) {
      event_.set_type("configuration_change");
      json flags = json::object();
      for (const auto& [key, type] : pending_.changes) flags[key] = {{"type", std::string(type)}};
      pending_.changes.clear();
      JsonToStruct({{"flags", std::move(flags)}}, *event_.mutable_data());
    } else if (std::exchange(pending_.shutdown, false)) {
      event_.set_type("provider_shutdown");
      said_goodbye_ = true;
    } else if (std::exchange(pending_.keep_alive, false)) {
      event_.set_type("keep_alive");
    } else {
      return false;
    }
    return true;
  }

  void End(const grpc::Status& status) ABSL_LOCKS_EXCLUDED(mu_) {
    {
      MutexLock lock(mu_);
      if (std::exchange(ended_, true)) return;
    }
    this->Finish(status);
  }

  FlagEvents& events_;
  std::shared_ptr<EventStream> self_;
  Event event_;  // belongs to whoever set writing_

  Mutex mu_;
  FlagNews pending_ ABSL_GUARDED_BY(mu_);
  bool writing_ ABSL_GUARDED_BY(mu_) = false;
  bool said_goodbye_ ABSL_GUARDED_BY(mu_) = false;
  bool ended_ ABSL_GUARDED_BY(mu_) = false;
};

// What the generator would write, were the service not called Service (protos/CMakeLists.txt).
template <typename Api>
class FlagdService : public grpc::Service {
 public:
  FlagdService(DoorContext doors, const CallGuard& guard, FlagEvents& events)
      : doors_(std::move(doors)), guard_(guard), events_(events) {
    AddResolve<typename Api::BooleanRequest>("ResolveBoolean", SetBoolean<typename Api::BooleanResponse>, "a boolean");
    AddResolve<typename Api::StringRequest>("ResolveString", SetString<typename Api::StringResponse>, "a string");
    AddResolve<typename Api::FloatRequest>("ResolveFloat", SetFloat<typename Api::FloatResponse>, "a number");
    AddResolve<typename Api::IntRequest>("ResolveInt", SetInt<typename Api::IntResponse>, "a 64-bit integer");
    AddResolve<typename Api::ObjectRequest>("ResolveObject", SetObject<typename Api::ObjectResponse>, "an object");
    using Event = typename Api::Event;
    Add("EventStream", grpc::internal::RpcMethod::SERVER_STREAMING,
        new grpc::internal::CallbackServerStreamingHandler<typename Api::EventRequest, Event>(
            [this](CallbackServerContext* context, const typename Api::EventRequest*) {
              return EventStream<Event>::Open(events_, guard_, *context);
            }));
  }

 protected:
  template <typename Request, typename Response>
  void AddUnary(const char* method,
                std::function<ServerUnaryReactor*(CallbackServerContext*, const Request*, Response*)> handler) {
    Add(method, grpc::internal::RpcMethod::NORMAL_RPC,
        new grpc::internal::CallbackUnaryHandler<Request, Response>(std::move(handler)));
  }

  // Opens the call and finishes it with what `handle` returns.
  template <typename Handle>
  ServerUnaryReactor* Guarded(CallbackServerContext& context, Handle handle) {
    const absl::StatusOr<CallContext> call = guard_.Open(context);
    const absl::Status status = call.ok() ? handle() : call.status();
    ServerUnaryReactor* reactor = context.DefaultReactor();
    reactor->Finish(ToGrpcStatus(status, context, call.ok() ? call->request_id : ""));
    return reactor;
  }

  const DoorContext doors_;

 private:
  // Takes `handler`.
  void Add(const char* method, grpc::internal::RpcMethod::RpcType type, grpc::internal::MethodHandler* handler) {
    names_.push_back("/" + std::string(Api::kName) + "/" + method);
    AddMethod(new grpc::internal::RpcServiceMethod(names_.back().c_str(), type, nullptr));
    MarkMethodCallback(static_cast<int>(names_.size()) - 1, handler);
  }

  template <typename Request, typename Response>
  void AddResolve(const char* method, bool (*set)(const json&, Response&), std::string_view type) {
    AddUnary<Request, Response>(
        method, [this, set, type](CallbackServerContext* context, const Request* request, Response* response) {
          return Resolve(*context, *request, *response, set, type);
        });
  }

  template <typename Request, typename Response>
  ServerUnaryReactor* Resolve(CallbackServerContext& context, const Request& request, Response& response,
                              bool (*set)(const json&, Response&), std::string_view type) {
    return Guarded(context, [&]() -> absl::Status {
      const FlagAnswer answer = AnswerFlag(*doors_.gate.snapshot(), request.flag_key(), StructToJson(request.context()),
                                           doors_.clock.WallNow());
      if (answer.error == FlagError::kFlagNotFound) doors_.gate.CountNotFound("flagd");
      if (answer.error != FlagError::kNone) return ErrorStatus(answer.error, answer.message);
      response.set_reason(answer.reason);
      JsonToStruct(answer.metadata, *response.mutable_metadata());
      if (answer.value.is_null()) {
        // v1 has no way to leave a value out but for DISABLED, where clients know to look away.
        if (Api::kValueCanBeAbsent || answer.reason == "DISABLED") return absl::OkStatus();
        return ErrorStatus(FlagError::kFlagNotFound,
                           "the flag leaves this context to the default in the client's code");
      }
      response.set_variant(answer.variant);
      if (set(answer.value, response)) return absl::OkStatus();
      return ErrorStatus(FlagError::kTypeMismatch, "the flag's value is a " + std::string(answer.value.type_name()) +
                                                       ", not " + std::string(type));
    });
  }

  const CallGuard& guard_;
  FlagEvents& events_;
  std::deque<std::string> names_;  // gRPC keeps pointers into them
};

// Only v1 has ResolveAll.
class FlagdServiceV1 final : public FlagdService<V1> {
 public:
  FlagdServiceV1(DoorContext doors, const CallGuard& guard, FlagEvents& events)
      : FlagdService(std::move(doors), guard, events) {
    AddUnary<Request, Response>(
        "ResolveAll", [this](CallbackServerContext* context, const Request* request, Response* response) {
          return Guarded(*context, [&] {
            const auto set = doors_.gate.snapshot();
            for (const FlagAnswer& answer :
                 AnswerAllFlags(*set, StructToJson(request->context()), doors_.clock.WallNow())) {
              if (answer.error == FlagError::kNone) EncodeAny(answer, (*response->mutable_flags())[answer.key]);
            }
            return absl::OkStatus();
          });
        });
  }

 private:
  using Request = ::flagd::evaluation::v1::ResolveAllRequest;
  using Response = ::flagd::evaluation::v1::ResolveAllResponse;
};

}  // namespace

std::vector<std::unique_ptr<grpc::Service>> MakeFlagdServices(DoorContext doors, const CallGuard& guard,
                                                              FlagEvents& events) {
  std::vector<std::unique_ptr<grpc::Service>> made;
  made.push_back(std::make_unique<FlagdServiceV1>(doors, guard, events));
  made.push_back(std::make_unique<FlagdService<V2>>(std::move(doors), guard, events));
  return made;
}

}  // namespace sluice::services
