{{- define "sluice.name" -}}
{{ default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "sluice.fullname" -}}
{{ default .Release.Name .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "sluice.selector" -}}
app.kubernetes.io/name: {{ include "sluice.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end }}

{{- define "sluice.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "sluice.selector" . }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* (dict "root" $ "name" NAME "labels" MAP "annotations" MAP): metadata of an object */ -}}
{{- define "sluice.metadata" -}}
{{- $root := .root -}}
metadata:
  name: {{ .name }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "sluice.labels" $root | nindent 4 }}
    {{- with .labels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with merge (dict) (default (dict) .annotations) $root.Values.commonAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- /* (dict "root" $ "image" {tag, digest}) */ -}}
{{- define "sluice.image" -}}
{{- $repository := .root.Values.image.repository -}}
{{- if .image.digest }}{{ $repository }}@{{ .image.digest }}
{{- else }}{{ $repository }}:{{ default .root.Chart.AppVersion .image.tag }}{{ end }}
{{- end }}

{{- define "sluice.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "sluice.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}{{ end }}
{{- end }}

{{- /* The grace that the pod gets: computed, or the operator's when it is long enough (checks.yaml). */ -}}
{{- define "sluice.neededGrace" -}}
{{- with .Values.shutdown }}{{ add .preStopSeconds .drainSeconds .marginSeconds }}{{ end }}
{{- end }}
{{- define "sluice.grace" -}}
{{- $given := .Values.shutdown.terminationGracePeriodSeconds -}}
{{- if kindIs "invalid" $given }}{{ include "sluice.neededGrace" . }}{{ else }}{{ int64 $given }}{{ end }}
{{- end }}

{{- define "sluice.modelPath" -}}
{{- $model := .Values.model -}}
{{- if eq $model.source "pvc" }}/models/{{ trimPrefix "/" $model.path }}
{{- else if eq $model.source "download" }}/models/{{ $model.download.sha256 }}.gguf
{{- else }}{{ $model.path }}{{ end }}
{{- end }}

{{- define "sluice.hasRoute" -}}
{{- if ne .Values.route.kind "none" }}true{{ end }}
{{- end }}

{{- /* runtime.yaml: what the chart decides, over what the operator wrote. */ -}}
{{- define "sluice.runtime" -}}
{{- $v := .Values -}}
{{- $server := dict
  "grpc_address" (printf "0.0.0.0:%d" (int64 $v.network.grpcPort))
  "metrics_address" (printf "0.0.0.0:%d" (int64 $v.network.metricsPort))
  "insecure" (not (and $v.tls.secret $v.auth.apiKeysSecret))
  "max_connection_age_ms" (mul $v.network.maxConnectionAgeSeconds 1000)
  "max_connection_age_grace_ms" (mul $v.network.maxConnectionAgeGraceSeconds 1000)
  "drain_delay_ms" (mul $v.shutdown.drainDelaySeconds 1000)
  "drain_grace_ms" (mul $v.shutdown.drainSeconds 1000) -}}
{{- if $v.auth.apiKeysSecret }}{{- $_ := set $server "api_keys_file" "/etc/sluice/auth/api_keys.yaml" }}{{ end -}}
{{- if $v.tls.secret }}
{{- $tls := dict "certificate_file" "/etc/sluice/tls/tls.crt" "key_file" "/etc/sluice/tls/tls.key" -}}
{{- if $v.tls.clientCaSecret }}{{- $_ := set $tls "client_ca_file" "/etc/sluice/client-ca/ca.crt" }}{{ end -}}
{{- $_ := set $server "tls" $tls }}
{{- end -}}
{{- $model := dict "name" $v.model.name "path" (include "sluice.modelPath" .) -}}
{{- $chart := dict "server" $server "log" (dict "format" "json") "models" (list $model) -}}
{{- if eq $v.state.store "file" }}{{- $_ := set $chart "state_folder" "/var/lib/sluice/state" }}{{ end -}}
{{- if eq $v.state.store "etcd" }}
{{- $etcd := dict "endpoints" $v.state.etcd.endpoints "prefix" $v.state.etcd.prefix -}}
{{- if $v.state.etcd.tlsSecret }}
{{- $etcd = merge $etcd (dict "ca_file" "/etc/sluice/etcd-tls/ca.crt" "cert_file" "/etc/sluice/etcd-tls/tls.crt"
  "key_file" "/etc/sluice/etcd-tls/tls.key") }}
{{- end -}}
{{- if $v.state.etcd.username }}
{{- $etcd = merge $etcd (dict "username" $v.state.etcd.username "password_file" "/etc/sluice/etcd-auth/password") }}
{{- end -}}
{{- $_ := set $chart "state" (dict "store" "etcd" "etcd" $etcd) }}
{{- end -}}
{{- toYaml (mergeOverwrite $chart (deepCopy $v.runtime)) }}
{{- end }}

{{- define "sluice.flags" -}}
{{- $shipped := .root.Files.Get "files/feature-flags.yaml" | fromYaml -}}
{{- toYaml (mergeOverwrite $shipped (deepCopy .root.Values.featureFlags) (deepCopy .over)) }}
{{- end }}

{{- define "sluice.policies" -}}
{{- if .Values.qosPolicies }}{{ toYaml .Values.qosPolicies }}
{{- else }}{{ .Files.Get "files/qos-policies.yaml" }}{{ end }}
{{- end }}

{{- define "sluice.rollouts" -}}
{{- if .Values.rollouts }}{{ toYaml .Values.rollouts }}
{{- else if eq .Values.state.store "none" }}{rollouts: []}
{{- else }}{{ .Files.Get "files/rollouts.yaml" }}{{ end }}
{{- end }}

{{- define "sluice.resources" -}}
{{- $presets := dict
  "none" (dict)
  "small" (dict "requests" (dict "cpu" "2" "memory" "2Gi") "limits" (dict "memory" "2Gi"))
  "medium" (dict "requests" (dict "cpu" "8" "memory" "16Gi") "limits" (dict "memory" "16Gi"))
  "large" (dict "requests" (dict "cpu" "32" "memory" "64Gi") "limits" (dict "memory" "64Gi")) -}}
{{- toYaml (mergeOverwrite (get $presets .Values.resources.preset) (deepCopy .Values.resources.override)) }}
{{- end }}
