{{- /* (dict "root" $ "service" NAME): how a probe asks. The kubelet's own gRPC probes speak no TLS. */ -}}
{{- define "sluice.probe" -}}
{{- $v := .root.Values -}}
{{- if $v.tls.secret -}}
exec:
  command:
    - sluicectl
    - health
    - --service={{ .service }}
    - --server=127.0.0.1:{{ int64 $v.network.grpcPort }}
    - --ca=/etc/sluice/tls/{{ $v.tls.caKey }}
    - --server-name={{ $v.tls.serverName }}
    {{- if $v.tls.clientCaSecret }}
    - --cert=/etc/sluice/probe/tls.crt
    - --key=/etc/sluice/probe/tls.key
    {{- end }}
{{- else -}}
grpc:
  port: {{ int64 $v.network.grpcPort }}
  service: {{ .service }}
{{- end }}
{{- end }}

{{- define "sluice.download" -}}
- name: model
  image: {{ include "sluice.image" (dict "root" . "image" .Values.image) }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  command: [sluice-fetch-model]
  args:
    - {{ .Values.model.download.url | quote }}
    - {{ .Values.model.download.sha256 | quote }}
    - {{ include "sluice.modelPath" . }}
  {{- with .Values.model.download.tokenSecret }}
  env:
    - name: FETCH_TOKEN
      valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
  {{- end }}
  securityContext:
    {{- include "sluice.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: model, mountPath: /models}
    - {name: tmp, mountPath: /tmp}
{{- end }}

{{- define "sluice.containerSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.securityContext.runAsUser }}
readOnlyRootFilesystem: true
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "sluice.container" -}}
{{- $root := .root -}}
{{- $v := .root.Values -}}
name: sluice
image: {{ include "sluice.image" (dict "root" $root "image" .image) }}
imagePullPolicy: {{ $v.image.pullPolicy }}
args:
  - --config=/etc/sluice/runtime/runtime.yaml
  - --flags=/etc/sluice/flags/feature-flags.yaml
  - --qos=/etc/sluice/policies/qos-policies.yaml
  - --rollouts=/etc/sluice/rollouts/rollouts.yaml
  {{- with $v.extraArgs }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
env:
  - name: SLUICE_REPLICA_ID
    valueFrom: {fieldRef: {fieldPath: metadata.name}}
  {{- with $v.extraEnv }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
ports:
  - {name: grpc, containerPort: {{ int64 $v.network.grpcPort }}}
  - {name: metrics, containerPort: {{ int64 $v.network.metricsPort }}}
{{- range $kind, $service := dict "startup" "readiness" "liveness" "liveness" "readiness" "readiness" }}
{{ $kind }}Probe:
  {{- include "sluice.probe" (dict "root" $root "service" $service) | nindent 2 }}
  {{- toYaml (get $v.probes $kind) | nindent 2 }}
{{- end }}
lifecycle:
  preStop: {sleep: {seconds: {{ int64 $v.shutdown.preStopSeconds }}}}
resources:
  {{- include "sluice.resources" $root | nindent 2 }}
securityContext:
  {{- include "sluice.containerSecurity" $root | nindent 2 }}
volumeMounts:
  - {name: runtime, mountPath: /etc/sluice/runtime, readOnly: true}
  - {name: flags, mountPath: /etc/sluice/flags, readOnly: true}
  - {name: policies, mountPath: /etc/sluice/policies, readOnly: true}
  - {name: rollouts, mountPath: /etc/sluice/rollouts, readOnly: true}
  - {name: tmp, mountPath: /tmp}
  {{- if ne $v.model.source "bundled" }}
  - {name: model, mountPath: /models, readOnly: true}
  {{- end }}
  {{- if eq $v.state.store "file" }}
  - {name: state, mountPath: /var/lib/sluice/state}
  {{- end }}
  {{- range include "sluice.secrets" $root | fromYamlArray }}
  - {name: {{ .volume }}, mountPath: /etc/sluice/{{ .volume }}, readOnly: true}
  {{- end }}
  {{- with $v.extraVolumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end }}

{{- /* Secrets that are mounted, each as a whole folder below /etc/sluice so that rotation arrives. */ -}}
{{- define "sluice.secrets" -}}
{{- $all := list
  (dict "volume" "auth" "secret" .Values.auth.apiKeysSecret)
  (dict "volume" "tls" "secret" .Values.tls.secret)
  (dict "volume" "client-ca" "secret" .Values.tls.clientCaSecret)
  (dict "volume" "probe" "secret" .Values.tls.probeSecret) -}}
{{- if eq .Values.state.store "etcd" }}
{{- $all = concat $all (list
  (dict "volume" "etcd-tls" "secret" .Values.state.etcd.tlsSecret)
  (dict "volume" "etcd-auth" "secret" .Values.state.etcd.passwordSecret)) }}
{{- end }}
{{- $used := list }}
{{- range $all }}{{ if .secret }}{{ $used = append $used . }}{{ end }}{{ end }}
{{- toYaml $used }}
{{- end }}

{{- define "sluice.volumes" -}}
{{- $v := .root.Values -}}
{{- $name := include "sluice.fullname" .root -}}
- {name: runtime, configMap: {name: {{ $name }}-runtime}}
- {name: flags, configMap: {name: {{ $name }}-flags{{ if eq .track "canary" }}-canary{{ end }}}}
- {name: policies, configMap: {name: {{ $name }}-policies}}
- {name: rollouts, configMap: {name: {{ $name }}-rollouts}}
- {name: tmp, emptyDir: {medium: Memory, sizeLimit: 64Mi}}
{{- if eq $v.model.source "pvc" }}
- {name: model, persistentVolumeClaim: {claimName: {{ $v.model.claim }}, readOnly: true}}
{{- else if eq $v.model.source "download" }}
{{- if $v.model.download.cacheClaim }}
- {name: model, persistentVolumeClaim: {claimName: {{ $v.model.download.cacheClaim }}}}
{{- else }}
- {name: model, emptyDir: {sizeLimit: {{ $v.model.download.sizeLimit }}}}
{{- end }}
{{- end }}
{{- if eq $v.state.store "file" }}
{{- if $v.state.claim }}
- {name: state, persistentVolumeClaim: {claimName: {{ $v.state.claim }}}}
{{- else }}
- {name: state, emptyDir: {sizeLimit: 64Mi}}
{{- end }}
{{- end }}
{{- range include "sluice.secrets" .root | fromYamlArray }}
- {name: {{ .volume }}, secret: {secretName: {{ .secret }}, defaultMode: 0440}}
{{- end }}
{{- with $v.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "sluice.spread" -}}
{{- if .root.Values.scheduling.topologySpreadConstraints }}
{{- toYaml .root.Values.scheduling.topologySpreadConstraints }}
{{- else }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- maxSkew: 1
  topologyKey: {{ . }}
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "sluice.selector" $.root | nindent 6 }}
      sluice-track: {{ $.track }}
{{- end }}
{{- end }}
{{- end }}

{{- /* (dict "root" $ "track" "stable" or "canary" "image" {tag, digest}): template of a pod */ -}}
{{- define "sluice.pod" -}}
{{- $root := .root -}}
{{- $v := .root.Values -}}
metadata:
  labels:
    {{- include "sluice.labels" $root | nindent 4 }}
    sluice-track: {{ .track }}
    {{- with $v.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/runtime: {{ include "sluice.runtime" $root | sha256sum }}
    {{- with merge (dict) $v.podAnnotations $v.commonAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "sluice.serviceAccount" $root }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "sluice.grace" $root }}
  securityContext:
    runAsNonRoot: true
    fsGroup: {{ int64 $v.securityContext.fsGroup }}
    seccompProfile: {type: RuntimeDefault}
  {{- with $v.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if or (eq $v.model.source "download") $v.initContainers }}
  initContainers:
    {{- if eq $v.model.source "download" }}
    {{- include "sluice.download" $root | nindent 4 }}
    {{- end }}
    {{- with $v.initContainers }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
  containers:
    - {{ include "sluice.container" . | nindent 6 | trim }}
    {{- with $v.sidecars }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  volumes:
    {{- include "sluice.volumes" . | nindent 4 }}
  {{- with $v.scheduling.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.scheduling.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.scheduling.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $v.scheduling.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- if or $v.scheduling.topologySpread $v.scheduling.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- include "sluice.spread" . | trim | nindent 4 }}
  {{- end }}
{{- end }}
