import createClient from "openapi-fetch";
import type { paths } from "./amends.js";

const amends = createClient<paths>({ baseUrl: "http://127.0.0.1:7070" });

// @ts-expect-error: there is no such path.
await amends.GET("/v1/saga/{id}", { params: { path: { id: "" } } });
// @ts-expect-error: a start names its definition.
await amends.POST("/v1/sagas", { body: { input: {} } });
const saga = await amends.GET("/v1/sagas/{id}", { params: { path: { id: "" } } });
// @ts-expect-error: it may be a problem.
saga.data.status;
if (saga.error) {
    // @ts-expect-error: a problem has no such field.
    saga.error.reason;
} else {
    // @ts-expect-error: a saga has no such status.
    saga.data.status === "done";
}
