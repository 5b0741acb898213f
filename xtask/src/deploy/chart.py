"""Has Helm lint and render the chart, and holds what comes out against the schemas of Kubernetes.

Reads one JSON object, {"chart", "cases", "refused", "kubernetes", "without_schema"}, and writes one:
{"lint": [...], "cases": {name: {"texts": {template: text}, "objects": [...], "notes": text}}, "refused": {name: message or null},
 "problems": [...]}. What to make of that is up to the caller.
"""

import functools
import json
import sys

import helm_python as helm
import kubernetes_validate.utils as schemas
import yaml

# It reads its files, some of them megabytes, for each object anew.
schemas.schema_contents = functools.lru_cache(maxsize=None)(schemas.schema_contents)


@functools.lru_cache(maxsize=None)
def problem(text, version):
    """Why an object is none of this version of Kubernetes. Objects that several cases have in common are looked at once."""
    try:
        schemas.validate(json.loads(text), version, strict=True)
    except schemas.ValidationError as error:
        return f"{'.'.join(map(str, error.path))}: {error.message}"
    except schemas.SchemaNotFoundError as error:
        return error.message
    return None


def values(case):
    return helm.values_from_yaml(case["yaml"]) if "yaml" in case else case["values"]


def main():
    asked = json.load(sys.stdin)
    answer = {"lint": [], "cases": {}, "refused": {}, "problems": []}
    with helm.Chart.load(asked["chart"]) as chart:
        for case in asked["cases"]:
            name = case["name"]
            report = helm.lint(asked["chart"], values(case), strict=True)
            answer["lint"] += [f"{name}: {error}" for error in report["errors"]]
            # 1 is for information: that there is no icon.
            answer["lint"] += [f"{name}: {m['path']}: {m['error']}" for m in report["messages"] if m["severity"] > 1]
            texts = chart.render(values(case), name="memguard", namespace="memguard")
            texts = {path.removeprefix("memguard/templates/"): text for path, text in texts.items()}
            manifests = {path: text for path, text in texts.items() if path.endswith(".yaml") and text.strip()}
            objects = [o for text in manifests.values() for o in yaml.safe_load_all(text) if o]
            answer["cases"][name] = {"texts": manifests, "objects": objects, "notes": texts["NOTES.txt"]}
            for o in objects:
                if f"{o['apiVersion']}/{o['kind']}" in asked["without_schema"]:
                    continue
                for version in asked["kubernetes"]:
                    why = problem(json.dumps(o, sort_keys=True), version)
                    if why:
                        answer["problems"].append(f"{name}: {o['kind']}, Kubernetes {version}: {why}")
        for case in asked["refused"]:
            try:
                chart.render(case["values"], name="memguard", namespace="memguard")
                answer["refused"][case["name"]] = None
            except helm.HelmError as error:
                answer["refused"][case["name"]] = str(error)
    json.dump(answer, sys.stdout)


main()
