{{- /* Choices that contradict each other. Shapes and ranges of single values: values.schema.json. */ -}}
{{- define "sluice.checks" -}}
{{- $v := .Values -}}
{{- $routed := include "sluice.hasRoute" . -}}
{{- $argo := eq $v.workload.kind "Rollout" -}}

{{- with $v.shutdown }}
{{- $needed := int64 (include "sluice.neededGrace" $) }}
{{- if not (kindIs "invalid" .terminationGracePeriodSeconds) }}
{{- if lt (int64 .terminationGracePeriodSeconds) $needed }}
{{- fail (printf "shutdown.terminationGracePeriodSeconds: %d s is too short: preStopSeconds %d + drainSeconds %d + marginSeconds %d = %d, so streams would be killed; allowed: at least %d, or null to have it computed" (int64 .terminationGracePeriodSeconds) (int64 .preStopSeconds) (int64 .drainSeconds) (int64 .marginSeconds) $needed $needed) }}
{{- end }}
{{- end }}
{{- if gt (int64 .drainDelaySeconds) (int64 .drainSeconds) }}
{{- fail (printf "shutdown.drainDelaySeconds: %d is more than drainSeconds %d, of which it is a part; allowed: 0 to %d" (int64 .drainDelaySeconds) (int64 .drainSeconds) (int64 .drainSeconds)) }}
{{- end }}
{{- end }}

{{- if and $v.hpa.enabled $v.keda.enabled }}
{{- fail "hpa.enabled, keda.enabled: both would set the number of pods and undo each other (KEDA makes an HPA of its own); allowed: one of them" }}
{{- end }}
{{- range $key := list "hpa" "keda" }}
{{- $scaler := get $v $key }}
{{- if and $scaler.enabled (gt (int64 $scaler.minReplicas) (int64 $scaler.maxReplicas)) }}
{{- fail (printf "%s.minReplicas: %d is more than %s.maxReplicas %d; allowed: at most %d" $key (int64 $scaler.minReplicas) $key (int64 $scaler.maxReplicas) (int64 $scaler.maxReplicas)) }}
{{- end }}
{{- end }}
{{- if and $v.keda.enabled (not $v.keda.prometheusAddress) }}
{{- fail "keda.prometheusAddress: is empty, but KEDA asks Prometheus; allowed: http://HOST:PORT or https://HOST:PORT" }}
{{- end }}
{{- if and (eq (toString $v.workload.maxSurge | trimSuffix "%") "0") (eq (toString $v.workload.maxUnavailable | trimSuffix "%") "0") }}
{{- fail "workload.maxSurge, workload.maxUnavailable: both are 0, so an upgrade could never begin; allowed: one of them above 0" }}
{{- end }}
{{- if and $v.pdb.enabled (eq (toString $v.pdb.maxUnavailable) "") (eq (toString $v.pdb.minAvailable) "") }}
{{- fail "pdb.maxUnavailable, pdb.minAvailable: both are empty; allowed: one of them" }}
{{- end }}
{{- if and $v.pdb.enabled (ne (toString $v.pdb.maxUnavailable) "") (ne (toString $v.pdb.minAvailable) "") }}
{{- fail "pdb.maxUnavailable, pdb.minAvailable: Kubernetes takes one of them; allowed: the other one \"\"" }}
{{- end }}

{{- if $v.canary.enabled }}
{{- if $argo }}
{{- fail "canary.enabled: Argo Rollouts makes its own canary (workload.kind Rollout, rollout.steps); allowed: false, or workload.kind Deployment" }}
{{- end }}
{{- if not $routed }}
{{- fail "canary.enabled: without a route nothing gives the canary its share of requests; allowed: route.kind GRPCRoute, HTTPRoute or both" }}
{{- end }}
{{- if not (or $v.canary.image.tag $v.canary.image.digest) }}
{{- fail "canary.image: tag and digest are empty, so the canary would be the stable version; allowed: one of them" }}
{{- end }}
{{- end }}
{{- if $routed }}
{{- if not $v.route.parentRefs }}
{{- fail "route.parentRefs: is empty, so no gateway takes the route; allowed: a list of {name, namespace, sectionName}" }}
{{- end }}
{{- if and $v.networkPolicy.enabled (not $v.route.gatewayFrom) }}
{{- fail "route.gatewayFrom: is empty, so the NetworkPolicy would keep the gateway out; allowed: a list of peers such as {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: gateway}}}" }}
{{- end }}
{{- end }}
{{- if $v.analysis.enabled }}
{{- if not $v.analysis.prometheusAddress }}
{{- fail "analysis.prometheusAddress: is empty, but the analysis asks Prometheus; allowed: http://HOST:PORT or https://HOST:PORT" }}
{{- end }}
{{- if not (or $argo $v.canary.enabled) }}
{{- fail "analysis.enabled: there is no canary to judge; allowed: false, canary.enabled true, or workload.kind Rollout" }}
{{- end }}
{{- end }}

{{- $outside := or (ne $v.service.type "ClusterIP") (and $routed (not $v.route.internal)) }}
{{- $by := ternary (printf "service.type %s" $v.service.type) (printf "route.kind %s" $v.route.kind) (ne $v.service.type "ClusterIP") }}
{{- if $outside }}
{{- if not $v.auth.apiKeysSecret }}
{{- fail (printf "auth.apiKeysSecret: is empty, but %s lets callers from outside the cluster in; allowed: a Secret with api_keys.yaml%s" $by (ternary ", or route.internal true" "" (eq $v.service.type "ClusterIP"))) }}
{{- end }}
{{- if not (or $v.tls.secret (and (eq $v.service.type "ClusterIP") $v.route.gatewayTerminatesTls)) }}
{{- fail (printf "tls.secret: is empty, but with %s tokens would cross the network in the clear; allowed: a Secret of kind kubernetes.io/tls%s" $by (ternary ", or route.gatewayTerminatesTls true" "" (eq $v.service.type "ClusterIP"))) }}
{{- end }}
{{- end }}
{{- if and $v.tls.secret (not $v.tls.serverName) }}
{{- fail "tls.serverName: is empty, but the probes check the certificate; allowed: a name that is in it" }}
{{- end }}
{{- if and (not $v.tls.secret) (or $v.tls.clientCaSecret $v.tls.probeSecret) }}
{{- fail "tls.clientCaSecret, tls.probeSecret: mTLS needs a server certificate too; allowed: with tls.secret" }}
{{- end }}
{{- if ne (empty $v.tls.clientCaSecret) (empty $v.tls.probeSecret) }}
{{- fail "tls.probeSecret, tls.clientCaSecret: the server asks the probes for a certificate as well; allowed: both or none" }}
{{- end }}

{{- if and (eq $v.model.source "pvc") (not $v.model.claim) }}
{{- fail "model.claim: is empty, but model.source is pvc; allowed: the name of a PersistentVolumeClaim" }}
{{- end }}
{{- if eq $v.model.source "download" }}
{{- if not (and $v.model.download.url $v.model.download.sha256) }}
{{- fail "model.download: model.source download needs url and sha256; allowed: https://... and 64 hex digits" }}
{{- end }}
{{- end }}
{{- with $v.state }}
{{- if and (eq .store "etcd") (not .etcd.endpoints) }}
{{- fail "state.etcd.endpoints: is empty, but state.store is etcd; allowed: a list of https://HOST:PORT" }}
{{- end }}
{{- if and .etcd.tlsSecret (hasPrefix "http://" (first (default (list "") .etcd.endpoints))) }}
{{- fail "state.etcd.tlsSecret: the endpoints are http; allowed: with https://HOST:PORT" }}
{{- end }}
{{- if and $v.rollouts (eq .store "none") }}
{{- fail "rollouts: a rollout keeps its state in a store; allowed: state.store file or etcd" }}
{{- end }}
{{- if ne (empty .etcd.username) (empty .etcd.passwordSecret) }}
{{- fail "state.etcd.username, state.etcd.passwordSecret: one without the other; allowed: both or none" }}
{{- end }}
{{- end }}
{{- if and $v.podMonitor.enabled $v.serviceMonitor.enabled }}
{{- fail "podMonitor.enabled, serviceMonitor.enabled: every pod would be scraped and counted twice; allowed: one of them" }}
{{- end }}
{{- if and $v.serviceMonitor.enabled (not $v.service.headless) }}
{{- fail "serviceMonitor.enabled: it scrapes through the headless Service; allowed: service.headless true, or podMonitor" }}
{{- end }}
{{- if and $v.inferencePool.enabled (not $v.inferencePool.endpointPicker.name) }}
{{- fail "inferencePool.endpointPicker.name: is empty, and a pool without an endpoint picker routes nothing; allowed: the name of its Service" }}
{{- end }}
{{- if eq (int64 $v.network.grpcPort) (int64 $v.network.metricsPort) }}
{{- fail (printf "network.metricsPort: %d is network.grpcPort too; allowed: another port" (int64 $v.network.metricsPort)) }}
{{- end }}
{{- end }}
