{{- define "memguard.labels" -}}
{{ include "memguard.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: memguard
{{- end }}

{{- define "memguard.selector" -}}
app.kubernetes.io/name: memguard
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "memguard.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}
