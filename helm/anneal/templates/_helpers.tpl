{{- define "anneal.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "anneal.selectorLabels" -}}
app.kubernetes.io/name: anneal
app.kubernetes.io/component: operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "anneal.labels" -}}
{{ include "anneal.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- /* REGISTRY/REPOSITORY@DIGEST or REGISTRY/REPOSITORY:TAG of (list ROOT IMAGE). */ -}}
{{- define "anneal.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- with $root.Values.images.registry }}{{ trimSuffix "/" . }}/{{ end -}}
{{- $image.repository -}}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end -}}
{{- end -}}

{{- /* What the operator reads at start (anneal_operator/settings.py parses it strictly). */ -}}
{{- define "anneal.settings" -}}
trainerImage: {{ include "anneal.image" (list . .Values.images.trainer) | quote }}
operatorImage: {{ include "anneal.image" (list . .Values.images.operator) | quote }}
rolloutImage: {{ include "anneal.image" (list . .Values.images.rollout) | quote }}
{{- if .Values.images.colocate.repository }}
colocateImage: {{ include "anneal.image" (list . .Values.images.colocate) | quote }}
{{- end }}
imagePullPolicy: {{ .Values.images.pullPolicy }}
imagePullSecrets: {{ .Values.images.pullSecrets | toJson }}
pools: {{- .Values.pools | toYaml | nindent 2 }}
storage: {{- .Values.storage | toYaml | nindent 2 }}
progressIntervalSeconds: {{ .Values.progressIntervalSeconds }}
{{- with .Values.monitoring }}
monitoring: {{- toYaml . | nindent 2 }}
{{- end }}
logLevel: {{ .Values.logLevel }}
{{- end -}}
